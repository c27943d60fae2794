#include "simulator/session.h"
#include "kernels.h"

int main() {
  convlab::sim::current_session() = std::make_shared<convlab::sim::Session>();
  launch_those_of_one();
  launch_those_of_other();
}
