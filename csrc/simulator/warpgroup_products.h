// wgmma of one thread: products that happen at some time between their issue and the wait. With order "forward" they
// happen when they are waited for, with "reverse" at once, with "random" by the toss of a coin.
#pragma once
#include <vector>

#include "simulator/runtime.h"

namespace convlab::sim {

class Runner;

class WarpgroupProducts {
 public:
  void clear();
  bool empty() const { return pending_.empty(); }
  Site first_site() const { return pending_.front().site; }
  void issue(Runner& runner, float* sums, int N, uint64_t a, uint64_t b, MultiplyRow multiply, Site site);
  void commit() { groups_++; }
  void wait(unsigned groups_that_may_be_pending);

 private:
  struct Product {
    float* sums;
    int N;
    uint64_t a, b;
    MultiplyRow multiply;
    int group;
    bool done;
    Site site;
  };
  static void read(Runner& runner, const Product& product);
  static void multiply(Runner& runner, const Product& product);
  std::vector<Product> pending_;
  int groups_ = 0;  // committed so far
};

}  // namespace convlab::sim
