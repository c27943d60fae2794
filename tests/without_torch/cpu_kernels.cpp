// The CPU's convolution algorithms against the reference, without torch: random problems, every pass, algorithm and
// element type, all layouts. Elements are small integers, so that sums are exact in any order and
// results must be equal. Tensors end, or begin, where memory does: an access past them is a fault.
//
//   cpu_kernels SEED PROBLEMS        prints what differs
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "algorithms.h"
#include "cpu/conv2d/bias_grad.h"
#include "cpu/conv2d/tap_tables.h"
#include "cpu/parallel.h"

namespace convlab {
namespace {

char doing[400];  // what a fault reports
int failures = 0;

constexpr int64_t kInexact = 10;  // winograd_4x4: its results are rounded to the nearest integers

struct Random {
  std::mt19937 engine;
  int below(int n) { return int(engine() % unsigned(n)); }
  int from(int least, int most) { return least + below(most - least + 1); }
  bool one_in(int n) { return below(n) == 0; }
};

// `count` elements between two pages that may not be touched, right before the second one or right behind the first
template <class T> class Tensor {
 public:
  Tensor(int64_t count, bool at_end) : count_(count) {
    const int64_t page = sysconf(_SC_PAGESIZE), bytes = count * int64_t(sizeof(T)),
                  inside = (bytes + page - 1) / page * page;
    size_ = inside + 2 * page;
    memory_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + page, inside, PROT_READ | PROT_WRITE) != 0) std::abort();
    data_ = reinterpret_cast<T*>(memory_ + page + (at_end ? inside - bytes : 0));
  }
  ~Tensor() { munmap(memory_, size_); }
  Tensor(const Tensor&) = delete;

  T* get() const { return data_; }
  size_t bytes() const { return size_t(count_) * sizeof(T); }
  void fill(Random& random) {
    for (int64_t i = 0; i < count_; i++) data_[i] = T(float(random.from(-4, 4)));
  }
  void unwrite() { std::memset(data_, 0xff, bytes()); }  // NaN
  bool operator==(const Tensor& other) const { return std::memcmp(data_, other.data_, bytes()) == 0; }

 private:
  int64_t count_, size_;
  char* memory_;
  T* data_;
};

struct Sample {
  Conv2d g;
  DType dtype;
  bool x_last, w_last, y_last, bias, at_end;  // x_last: x is channels_last
};

// Mostly several register tiles, vectors of channels and strips of the smallest instruction set, with remainders
Sample random_sample(Random& random) {
  while (true) {
    Sample sample{};
    Conv2d& g = sample.g;
    g.groups = random.one_in(3) ? random.from(2, 6) : 1;
    g.N = random.one_in(4) ? random.from(1, 40) : random.from(1, 3);
    g.C = g.groups * random.from(1, random.one_in(3) ? 24 : 4),
    g.K = g.groups * random.from(1, random.one_in(2) ? 24 : 6);
    if (random.one_in(6)) g.C = g.K = g.groups = random.from(1, random.one_in(2) ? 24 : 70);
    g.H = random.from(1, 40), g.W = random.from(1, 60);
    g.R = random.from(1, 4), g.S = random.from(1, 5);
    g.stride_h = random.from(1, 3), g.stride_w = random.from(1, 3);
    g.dilation_h = random.one_in(4) ? 2 : 1, g.dilation_w = random.one_in(4) ? 3 : 1;
    g.pad_h = random.from(0, 3), g.pad_w = random.from(0, 3);
    if (random.one_in(4)) g.R = g.S = g.stride_h = g.stride_w = 1, g.pad_h = g.pad_w = 0;
    if (random.one_in(4)) g.R = g.S = 3, g.stride_h = g.stride_w = g.dilation_h = g.dilation_w = 1;
    if (random.one_in(4)) g.W = (g.W + 3) / 4 * 4;
    g.P = int(conv_outputs(g.H, g.pad_h + random.from(0, g.pad_h), g.R, g.stride_h, g.dilation_h));
    g.Q = int(conv_outputs(g.W, g.pad_w + random.from(0, g.pad_w), g.S, g.stride_w, g.dilation_w));
    if (g.P < 1 || g.Q < 1 || int64_t(g.N) * g.K * g.P * g.Q * g.Cg() * g.R * g.S > 400000) continue;
    constexpr DType dtypes[] = {DType::float32, DType::float32, DType::float64, DType::float16, DType::bfloat16};
    sample.dtype = dtypes[random.below(5)];
    sample.x_last = random.one_in(2), sample.w_last = random.one_in(2), sample.y_last = random.one_in(2);
    sample.bias = random.one_in(2), sample.at_end = !random.one_in(4);
    return sample;
  }
}

// run(result) with the work in whole and in single pieces, against what the reference wrote
template <class T, class F>
void compare(const std::string& what, const Sample& sample, const Tensor<T>& expected, Tensor<T>& result,
             const F& run) {
  static const char* const dtypes[] = {"float32", "float64", "float16", "bfloat16"};
  for (const int64_t part : {INT64_MAX, int64_t(1)}) {
    const Conv2d& g = sample.g;
    std::snprintf(doing, sizeof doing,
                  "%s %s x %dx%dx%dx%d%s w %dx%dx%d%s y %dx%d%s stride %d %d padding %d %d dilation %d %d groups %d%s, "
                  "%s parts, tensors at the %s of memory\n",
                  what.c_str(), dtypes[int(sample.dtype)], g.N, g.C, g.H, g.W, sample.x_last ? " channels_last" : "",
                  g.K, g.R, g.S, sample.w_last ? " channels_last" : "", g.P, g.Q, sample.y_last ? " channels_last" : "",
                  g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.dilation_h, g.dilation_w, g.groups,
                  sample.bias ? " bias" : "", part == 1 ? "single" : "large", sample.at_end ? "end" : "beginning");
    torch::stable::largest_part = part;
    result.unwrite();
    run(result.get());
    if (result == expected) continue;
    failures++;
    std::printf("differs: %s", doing);
  }
}

void expect(bool is_so, const char* what) {
  if (!is_so) failures++, std::printf("not so: %s\n", what);
}

// Threads are woken for what they save, not when they were late, and tried again after a while.
void check_lateness() {
  Lateness late;
  expect(late.worth(1e-5, 0), "at first threads are on time");
  late.note(1.0, 1.9, 0.9, 2, 10);
  expect(late.worth(1e-9, 10), "what two threads did sooner than one was on time");
  late.note(1e-3, 9e-3, 0, 2, 15);
  expect(late.worth(1e-9, 15), "a part that is large is not late");
  late.note(1e-3, 9e-3, 8e-3, 2, 20);
  expect(!late.worth(1e-3, 20) && !late.worth(1e-3, 20.05), "8 ms late: no work for a thread that saves 1 ms");
  expect(late.worth(1e-2, 20), "but work for one that saves 10 ms");
  late.note(1e-3, 1.9e-3, 0.9e-3, 2, 20);
  expect(!late.worth(1e-3, 20.05), "parts that are not of one size do not say that threads are on time again");
  expect(late.worth(1e-5, 20.1), "after a while they are tried again");
  for (int i = 0; i < 50; i++) late.note(1e-3, 1e-3, 0, 2, 21);
  expect(late.worth(1e-6, 21), "and what was late is forgotten");
  late.note(30e-3, 90e-3, 60e-3, 2, 30);
  expect(late.worth(1e-5, 30.1), "a large call that waited for more than cores stops the small ones for a moment only");
}

template <class T> void check(const Sample& sample, Random& random) {
  const Conv2d& g = sample.g;
  const auto tensor = [&](int64_t count) { return Tensor<T>(count, sample.at_end); };
  const int64_t x_size = int64_t(g.N) * g.C * g.H * g.W, w_size = int64_t(g.K) * g.Cg() * g.R * g.S,
                y_size = int64_t(g.N) * g.K * g.P * g.Q;
  Tensor<T> x = tensor(x_size), w = tensor(w_size), bias = tensor(g.K), dy = tensor(y_size);
  for (Tensor<T>* t : {&x, &w, &bias, &dy}) t->fill(random);

  struct Case {
    Problem problem;
    Operands operands;
    int64_t size;
  };
  const auto case_of = [&](Pass pass, const T* first, bool first_last, const T* second, bool second_last, const T* bias,
                           int64_t size, bool last) {
    return Case{{pass, sample.dtype, g, last, {first_last, second_last, last}}, {first, second, bias, nullptr}, size};
  };
  const Case cases[] = {
      case_of(Pass::forward, x.get(), sample.x_last, w.get(), sample.w_last, sample.bias ? bias.get() : nullptr, y_size,
              sample.y_last),
      case_of(Pass::dgrad, dy.get(), sample.y_last, w.get(), sample.w_last, nullptr, x_size, sample.x_last),
      case_of(Pass::wgrad, dy.get(), sample.y_last, x.get(), sample.x_last, nullptr, w_size, sample.w_last),
  };
  for (Case c : cases) {
    Tensor<T> expected = tensor(c.size), result = tensor(c.size);
    const auto run = [&](const AlgorithmRow& row, T* to) {
      c.operands.output = to;
      row.cpu.rung->run(row.cpu.rung->plan(c.problem), c.problem, c.operands);
      for (int64_t i = 0; i < c.size && row.id == kInexact; i++) to[i] = T(std::round(float(to[i])) + 0.0f);  // no -0
    };
    run(*find_algorithm(1), expected.get());
    for (const AlgorithmRow& row : algorithms())
      if (row.id != 1 && row.cpu.rung && refusal(row, Backend::cpu, c.problem).empty())
        compare(kPassNames[int(c.problem.pass)] + std::string(" ") + row.name, sample, expected, result,
                [&](T* to) { run(row, to); });
  }

  Tensor<T> db = tensor(g.K), result = tensor(g.K);
  const Strides ys = y_strides(cases[1].problem);
  for (int k = 0; k < g.K; k++) {
    acc_t<T> sum = 0;
    for (int n = 0; n < g.N; n++)
      for (int p = 0; p < g.P; p++)
        for (int q = 0; q < g.Q; q++) sum += acc_t<T>(dy.get()[n * ys.n + k * ys.c + p * ys.h + q * ys.w]);
    db.get()[k] = T(sum);
  }
  compare("bias gradient", sample, db, result, [&](T* to) { bias_grad(cases[2].problem, dy.get(), to); });
}

void fault(int) {
  constexpr char said[] = "access past a tensor: ";
  if (write(STDOUT_FILENO, said, sizeof said - 1) < 0 || write(STDOUT_FILENO, doing, std::strlen(doing)) < 0) _exit(3);
  _exit(2);
}

}  // namespace
}  // namespace convlab

int main(int count, char** arguments) {
  using namespace convlab;
  if (count != 3) return std::fputs("usage: cpu_kernels SEED PROBLEMS\n", stderr), 1;
  std::signal(SIGSEGV, fault);
  std::signal(SIGBUS, fault);
  Random random{std::mt19937(unsigned(std::atoi(arguments[1])))};
  const int problems = std::atoi(arguments[2]);
  check_lateness();
  for (int i = 0; i < problems; i++) {
    const Sample sample = random_sample(random);
    dispatch(sample.dtype, [&](auto tag) { check<typename decltype(tag)::type>(sample, random); });
  }
  std::printf("%s: %d problems, %d failures\n", instruction_set().name, problems, failures);
  return failures > 0;
}
