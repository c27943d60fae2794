// Runs a kernel of one's own in the simulator, once: reads a request from stdin, writes the answer to stdout. Both are
// numbers as they lie in memory and texts behind their length; convlab/testing/program.py has the other end.
//
//   request   int64 order, seed, count (0: do not, n: one block in n; more than 1, and the output means nothing); problem; int64 inputs, of each: int64 element_bytes, name, data; element_bytes, name, output
//   answer    int64 0, output, launches, traffic (rows of text)  |  1, refusal  |  2, the simulator's report  |  3,
//   another exception; then what kernels printed
//
// run_kernel form: writes which of its arguments the launcher takes instead.
//
// What has no data (an absent bias) has length -1.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "simulator/api.h"
#include "simulator/check.h"
#include "simulator/device_memory.h"
#include "simulator/plain/runtime.h"
#include "simulator/session.h"
#include "testing/kernel_call.h"

namespace sim = convlab::sim;
namespace testing = convlab::testing;

namespace {

enum Answer : int64_t { right, refused, reported, failed };

void read_bytes(void* to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) throw std::runtime_error("the request ends early");
}

int64_t read_number() {
  int64_t n;
  read_bytes(&n, sizeof n);
  return n;
}

struct Data {
  bool absent = false;
  std::vector<char> bytes;
};

Data read_data() {
  const int64_t length = read_number();
  Data data{length < 0, std::vector<char>(length < 0 ? 0 : size_t(length))};
  read_bytes(data.bytes.data(), data.bytes.size());
  return data;
}

std::string read_text() {
  const Data d = read_data();
  return {d.bytes.begin(), d.bytes.end()};
}

void write_data(FILE* to, const void* data, size_t bytes) {
  const int64_t length = int64_t(bytes);
  fwrite(&length, sizeof length, 1, to);
  fwrite(data, 1, bytes, to);
}

void write_text(FILE* to, const std::string& text) { write_data(to, text.data(), text.size()); }

std::string rows_of_launches(const sim::Session& session) {
  std::string rows;
  for (const sim::LaunchRecord& l : session.launches) {
    rows += l.kernel + '\t' + l.source;
    for (unsigned n : {l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y, l.block.z}) rows += '\t' + std::to_string(n);
    rows += '\t' + std::to_string(l.shared_bytes) + '\n';
  }
  return rows;
}

std::string rows_of_traffic(const sim::Session& session) {
  std::string rows;
  for (const auto& [at, sums] : session.traffic_of_all()) {
    rows += at.kernel + '\t' + at.kernel_source + '\t' + at.file + '\t' + std::to_string(at.line) + '\t' + at.memory +
            '\t' + (at.shared ? "shared" : "global");
    for (uint64_t n : {uint64_t(at.access), sums.requests, sums.bytes, sums.cost, sums.ideal, sums.apart, sums.missed})
      rows += '\t' + std::to_string(n);
    rows += '\n';
  }
  return rows;
}

void answer(FILE* to) {
  const auto session = std::make_shared<sim::Session>();
  session->order = sim::Order(read_number()), session->seed = uint64_t(read_number()),
  session->one_block_in = uint64_t(read_number()), session->count = session->one_block_in != 0;
  sim::current_session() = session;

  const Data problem = read_data();
  if (problem.bytes.size() != testing::kProblemBytes)
    throw std::runtime_error("the problem has " + std::to_string(problem.bytes.size()) + " bytes, expected " +
                             std::to_string(testing::kProblemBytes));
  std::vector<sim::DeviceCopy> inputs;
  for (int64_t i = read_number(); i > 0; i--) {
    const unsigned element_bytes = unsigned(read_number());
    const std::string name = read_text();
    const Data data = read_data();
    inputs.push_back(sim::DeviceCopy::input(data.absent ? nullptr : data.bytes.data(), data.bytes.size(), element_bytes,
                                            name.c_str()));
  }
  const unsigned element_bytes = unsigned(read_number());
  const std::string name = read_text();
  std::vector<char> result(static_cast<size_t>(read_number()));

  const auto begin_answer = [&](Answer kind) { fwrite(&kind, sizeof kind, 1, to); };
  if (const char* why = testing::refusal(problem.bytes.data())) return begin_answer(refused), write_text(to, why);
  try {
    auto output = sim::DeviceCopy::output(result.data(), result.size(), element_bytes, name.c_str());
    const auto workspace =
        sim::DeviceCopy::scratch(size_t(testing::workspace_bytes(problem.bytes.data())), "workspace");
    std::vector<const void*> pointers;
    for (const sim::DeviceCopy& copy : inputs) pointers.push_back(copy.get());
    const int status = testing::run(problem.bytes.data(), pointers.data(), output.get(), workspace.get());
    if (status) return begin_answer(reported), write_text(to, "the program ended with " + std::to_string(status));
    sim::fail_if_the_host_touched_device_memory();
    output.copy_back();
  } catch (const sim::Error& error) {
    return begin_answer(reported), write_text(to, error.what());
  } catch (const std::exception& error) {
    return begin_answer(failed), write_text(to, error.what());
  }
  begin_answer(right);
  write_data(to, result.data(), result.size());
  write_text(to, rows_of_launches(*session));
  write_text(to, rows_of_traffic(*session));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && !strcmp(argv[1], "form")) return puts(testing::form()) < 0;
  FILE* to = fdopen(dup(1), "wb");
  dup2(2, 1);  // what the kernel prints does not get between
  answer(to);
  write_text(to, sim::plain::printed());
  return fclose(to) == 0 ? 0 : 1;
}
