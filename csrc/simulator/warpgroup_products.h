// wgmma of one thread: products that happen at some time between their issue and the wait. With order "forward" they
// happen when they are waited for, with "reverse" at once, with "random" by the toss of a coin. Registers of A are taken
// when a product is issued, and must be the same when it is waited for.
#pragma once
#include <vector>

#include "simulator/runtime.h"

namespace convlab::sim {

class Runner;

// The two rows of A that a lane's sums are of, 32 bytes of each, out of the registers of four lanes
struct RowsOfA {
  uint32_t at[2][8];
};

class WarpgroupProducts {
 public:
  void clear();
  bool empty() const { return pending_.empty(); }
  Site first_site() const { return pending_.front().site; }
  void issue(Runner& runner, const WarpgroupProduct& product, const RowsOfA& rows, bool lines, Site site);
  void commit() { groups_++; }
  void wait(unsigned groups_that_may_be_pending);

 private:
  struct Product : WarpgroupProduct {
    RowsOfA rows;
    uint32_t taken[4];  // from the registers
    bool lines;  // rows of both lie side by side
    int group;
    bool done;
    Site site;
  };
  static void read(Runner& runner, const Product& product);
  static void multiply(Runner& runner, const Product& product);
  static void multiply_lines(Runner& runner, const Product& product);
  static void check_registers(const Product& product);
  std::vector<Product> pending_;
  int groups_ = 0;  // committed so far
};

}  // namespace convlab::sim
