#include "simulator/report.h"

#include "simulator/elf_file.h"
#include "simulator/kernel_info.h"
#include "simulator/runner.h"

namespace convlab::sim {
std::string text(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

std::string text(Site site) { return text(Where(site).place()); }

Place Where::place() const {
  if (return_address_) return place_of_call(return_address_);
  return {normal(site_.file_name()), site_.line(), site_.column()};
}

void fail(Report report) {
  Runner* r = running();
  if (!r || !r->current)
    throw Error("convlab simulator: " + report.what +
                (report.where.known() ? "\n  at " + text(report.where.place()) : ""));
  r->in_runtime = true;
  if (r->read_too_early) {  // whatever came of it
    builtins.thread = r->read_too_early->thread;
    r->abandon(r->read_too_early->report);
  }
  r->abandon(std::move(report));
}

std::string Runner::position() const {
  return "\n  thread " + text(builtins.thread) + " of " +
         text(uint3{builtins.block_size.x, builtins.block_size.y, builtins.block_size.z}) + ", block " +
         text(builtins.block) + " of " + text(uint3{builtins.grid_size.x, builtins.grid_size.y, builtins.grid_size.z}) +
         "\n  kernel " + kernel_info(launch_->kernel).title() + "\n  order " + name_of(order) + ", seed " +
         std::to_string(seed_);
}

}  // namespace convlab::sim
