// The CPU's convolution kernels of one instruction set against the reference, without torch: random problems, every
// pass, algorithm and element type, all layouts. Elements are small integers, so that sums are exact in any order and
// results must be equal. Tensors end, or begin, where memory does: an access past them is a fault.
//
//   cpu_kernels SEED PROBLEMS        prints what differs
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/conv2d_direct.h"
#include "cpu/conv2d_reference.h"
#include "cpu/conv2d_register_tiled.h"

namespace convlab {
namespace {

const CpuKernels& cpu = cpu_kernels();
char doing[400];  // what is said of a fault
int failures = 0;

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

struct Problem {
  Conv2d g;
  DType dtype;
  bool x_last, w_last, y_last, bias, at_end;  // x_last: x is channels_last
};

// Mostly several register tiles, vectors of channels and strips of the smallest instruction set, with remainders
Problem random_problem(Random& random) {
  while (true) {
    Problem problem{};
    Conv2d& g = problem.g;
    g.groups = random.one_in(3) ? random.from(2, 6) : 1;
    g.N = random.one_in(4) ? random.from(1, 40) : random.from(1, 3);
    g.C = g.groups * random.from(1, random.one_in(3) ? 24 : 4),
    g.K = g.groups * random.from(1, random.one_in(2) ? 24 : 6);
    g.H = random.from(1, 40), g.W = random.from(1, 60);
    g.R = random.from(1, 4), g.S = random.from(1, 5);
    g.stride_h = random.from(1, 3), g.stride_w = random.from(1, 3);
    g.dilation_h = random.one_in(4) ? 2 : 1, g.dilation_w = random.one_in(4) ? 3 : 1;
    g.pad_h = random.from(0, 3), g.pad_w = random.from(0, 3);
    if (random.one_in(4)) g.R = g.S = g.stride_h = g.stride_w = 1, g.pad_h = g.pad_w = 0;
    if (random.one_in(4)) g.W = (g.W + 3) / 4 * 4;
    g.P = int(conv_outputs(g.H, g.pad_h + random.from(0, g.pad_h), g.R, g.stride_h, g.dilation_h));
    g.Q = int(conv_outputs(g.W, g.pad_w + random.from(0, g.pad_w), g.S, g.stride_w, g.dilation_w));
    if (g.P < 1 || g.Q < 1 || int64_t(g.N) * g.K * g.P * g.Q * g.Cg() * g.R * g.S > 400000) continue;
    constexpr DType dtypes[] = {DType::float32, DType::float32, DType::float64, DType::float16, DType::bfloat16};
    problem.dtype = dtypes[random.below(5)];
    problem.x_last = random.one_in(2), problem.w_last = random.one_in(2), problem.y_last = random.one_in(2);
    problem.bias = random.one_in(2), problem.at_end = !random.one_in(4);
    return problem;
  }
}

// As in conv2d.cpp
Filters filters_of(const Conv2d& g, bool channels_last, bool lanes_are_k) {
  const int64_t taps = int64_t(g.R) * g.S, k = g.Cg() * taps, c = channels_last ? 1 : taps,
                tap = channels_last ? g.Cg() : 1;
  return {g.groups,   lanes_are_k ? g.Kg() : g.Cg(), lanes_are_k ? g.Cg() : g.Kg(), g.R, g.S,
          g.Kg() * k, lanes_are_k ? k : c,           lanes_are_k ? c : k,           tap};
}

// run(result) with the work in whole and in single pieces, against what the reference wrote
template <class T, class F>
void compare(const char* what, const Problem& problem, const Tensor<T>& expected, Tensor<T>& result, const F& run) {
  static const char* const dtypes[] = {"float32", "float64", "float16", "bfloat16"};
  for (const int64_t part : {INT64_MAX, int64_t(1)}) {
    const Conv2d& g = problem.g;
    std::snprintf(doing, sizeof doing,
                  "%s %s x %dx%dx%dx%d%s w %dx%dx%d%s y %dx%d%s stride %d %d padding %d %d dilation %d %d groups %d%s, "
                  "%s parts, tensors at the %s of memory\n",
                  what, dtypes[int(problem.dtype)], g.N, g.C, g.H, g.W, problem.x_last ? " channels_last" : "", g.K,
                  g.R, g.S, problem.w_last ? " channels_last" : "", g.P, g.Q, problem.y_last ? " channels_last" : "",
                  g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.dilation_h, g.dilation_w, g.groups,
                  problem.bias ? " bias" : "", part == 1 ? "single" : "large", problem.at_end ? "end" : "beginning");
    torch::stable::largest_part = part;
    result.unwrite();
    run(result.get());
    if (result == expected) continue;
    failures++;
    std::printf("differs: %s", doing);
  }
}

template <class T> void check(const Problem& problem, Random& random) {
  const Conv2d& g = problem.g;
  const auto tensor = [&](int64_t count) { return Tensor<T>(count, problem.at_end); };
  Tensor<T> x = tensor(int64_t(g.N) * g.C * g.H * g.W), w = tensor(int64_t(g.K) * g.Cg() * g.R * g.S),
            bias = tensor(g.K), dy = tensor(int64_t(g.N) * g.K * g.P * g.Q);
  for (Tensor<T>* t : {&x, &w, &bias, &dy}) t->fill(random);
  const Strides xs = strides_of(g.C, g.H, g.W, problem.x_last), ys = strides_of(g.K, g.P, g.Q, problem.y_last);
  const Filters over_c = filters_of(g, problem.w_last, true), over_k = filters_of(g, problem.w_last, false);
  const T* const bias_or_null = problem.bias ? bias.get() : nullptr;

  Tensor<T> y = tensor(int64_t(g.N) * g.K * g.P * g.Q), dx = tensor(int64_t(g.N) * g.C * g.H * g.W),
            dw = tensor(int64_t(g.K) * g.Cg() * g.R * g.S), db = tensor(g.K);
  reference::forward(g, xs, over_c, ys, x.get(), w.get(), bias_or_null, y.get());
  reference::dgrad(g, ys, over_k, xs, dy.get(), w.get(), dx.get());
  reference::wgrad(g, ys, xs, over_c, dy.get(), x.get(), dw.get());
  for (int k = 0; k < g.K; k++) {
    acc_t<T> sum = 0;
    for (int n = 0; n < g.N; n++)
      for (int p = 0; p < g.P; p++)
        for (int q = 0; q < g.Q; q++) sum += acc_t<T>(dy.get()[reference::at(ys, n, k, p, q)]);
    db.get()[k] = T(sum);
  }

  const DType dtype = problem.dtype;
  const int lanes = cpu.lanes(dtype);
  const Axis rows = rows_of(g), columns = columns_of(g);
  Tensor<T> result_y = tensor(int64_t(g.N) * g.K * g.P * g.Q), result_x = tensor(int64_t(g.N) * g.C * g.H * g.W),
            result_w = tensor(int64_t(g.K) * g.Cg() * g.R * g.S), result_b = tensor(g.K);
  {
    const Classes vertical(forward_classes(rows)), horizontal(forward_classes(columns));
    const Product p{g.N, g.groups, g.Cg(), g.Kg(), vertical.view(g.R, g.H, g.P), horizontal.view(g.S, g.W, g.Q), xs,
                    ys,  1,        1,      1};
    const direct::Columns c = direct::Columns::forward(columns, lanes);
    compare("forward register_tiled", problem, y, result_y,
            [&](T* to) { register_tiled::run(cpu, dtype, p, over_c, x.get(), w.get(), bias_or_null, to); });
    compare("forward direct", problem, y, result_y,
            [&](T* to) { direct::run(cpu, dtype, p, c, over_c, x.get(), w.get(), bias_or_null, to); });
    compare("wgrad register_tiled", problem, dw, result_w,
            [&](T* to) { register_tiled::wgrad(cpu, dtype, p, over_c, rows, columns, dy.get(), x.get(), to); });
    compare("wgrad direct", problem, dw, result_w,
            [&](T* to) { direct::wgrad(cpu, dtype, p, c, over_c, rows, dy.get(), x.get(), to); });
  }
  {
    const Classes vertical(dgrad_classes(rows)), horizontal(dgrad_classes(columns));
    const Product p{g.N, g.groups, g.Kg(), g.Cg(), vertical.view(g.R, g.P, g.H), horizontal.view(g.S, g.Q, g.W), ys,
                    xs,  1,        1,      1};
    const direct::Columns c = direct::Columns::dgrad(columns, lanes);
    const T* const none = nullptr;
    compare("dgrad register_tiled", problem, dx, result_x,
            [&](T* to) { register_tiled::run(cpu, dtype, p, over_k, dy.get(), w.get(), none, to); });
    compare("dgrad direct", problem, dx, result_x,
            [&](T* to) { direct::run(cpu, dtype, p, c, over_k, dy.get(), w.get(), none, to); });
  }
  compare("bias gradient", problem, db, result_b, [&](T* to) {
    parallel_over(ys.c == 1 ? (g.K + lanes - 1) / lanes : g.K, g.N * g.P * g.Q, [&](int64_t begin, int64_t end) {
      cpu.conv[int(dtype)].bias_grad(g.N, int64_t(g.P) * g.Q, ys, g.K, dy.get(), to, begin, end);
    });
  });
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
  for (int i = 0; i < problems; i++) {
    const Problem problem = random_problem(random);
    dispatch(problem.dtype, [&](auto tag) { check<typename decltype(tag)::type>(problem, random); });
  }
  std::printf("%s: %d problems, %d failures\n", cpu.name, problems, failures);
  return failures > 0;
}
