// run ORDER...: runs every planted kernel in every order, all in this process, and prints a line for each:
//
//   name <tab> order <tab> error | right | wrong | ran <tab> message, with line ends as '|'
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "simulator/device_memory.h"
#include "simulator/runtime.h"
#include "simulator/session.h"
#include "simulator/watchdog.h"
#include "planted.h"

namespace sim = convlab::sim;

std::vector<planted::Case>& planted::cases() {
  static std::vector<Case> all;
  return all;
}

int main(int argc, char** argv) {
  sim::watchdog_seconds() = 0.3;
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> in(planted::kElements), out(planted::kElements);
  for (float& v : in) v = uniform(random);

  for (int o = 0; o < 3; o++)
    for (const planted::Case& c : planted::cases()) {
      if (argc > 1 && strcmp(argv[1], c.name) != 0) continue;
      const auto session = std::make_shared<sim::Session>();
      session->order = sim::Order(o), session->seed = 7;
      sim::current_session() = session;
      const char* verdict = "ran";
      std::string message;
      try {
        auto x = sim::DeviceCopy::input(in.data(), in.size() * 4, 4, "in"), y = sim::DeviceCopy::output(out.data(), out.size() * 4, 4, "out");
        c.run(static_cast<const float*>(x.get()), static_cast<float*>(y.get()));
        y.copy_back();
        if (c.right) {
          verdict = "right";
          for (int i = 0; i < 64; i++)
            if (!(std::fabs(out[i] - c.right(in.data(), i)) < 1e-5f)) verdict = "wrong";
        }
      } catch (const sim::Error& e) {
        verdict = "error", message = e.what();
        for (char& ch : message) ch = ch == '\n' ? '|' : ch;
      }
      printf("%s\t%s\t%s\t%s\n", c.name, sim::name_of(session->order), verdict, message.c_str());
      fflush(stdout);
    }
}
