// convlab._lab: the torch-free things that Python wants to see.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <bit>

#include "algorithms.h"
#include "cpu/conv2d/cpu_rung.h"
#include "cpu/conv2d/winograd/counts.h"
#include "cpu/conv2d/winograd/winograd_plan.h"
#include "cpu/instruction_sets.h"
#include "geometry/validate.h"
#include "kernels/plan.h"
#include "kernels/tensor_core_gate.h"
#include "simulator_bindings.h"
#include "tiles.h"

// What the build was made with; setup.py says.
#if !defined(CONVLAB_BUILD_TORCH) || !defined(CONVLAB_BUILD_NVCC) || !defined(CONVLAB_BUILD_ARCHS) || \
    !defined(CONVLAB_BUILD_CXX)
#error \
    "setup.py defines CONVLAB_BUILD_TORCH, CONVLAB_BUILD_NVCC (empty without CUDA), CONVLAB_BUILD_ARCHS and CONVLAB_BUILD_CXX"
#endif

namespace py = pybind11;

namespace convlab {
namespace {

py::list table() {
  py::list rows;
  for (const AlgorithmRow& row : algorithms()) {
    py::dict backends;  // name -> (technique, names of passes)
    for (const Backend backend : {Backend::cpu, Backend::cuda}) {
      py::list names;
      for (int pass = 0; pass < 3; pass++)
        if (row.passes(backend) & bit(Pass(pass))) names.append(kPassNames[pass]);
      if (py::len(names)) backends[kBackendNames[int(backend)]] = py::make_tuple(row.technique(backend), names);
    }
    rows.append(py::make_tuple(row.id, row.name, backends));
  }
  return rows;
}

template <size_t n> int index_of(const char* what, const std::string& name, const char* const (&names)[n]) {
  for (size_t i = 0; i < n; i++)
    if (name == names[i]) return int(i);
  throw std::invalid_argument(message(what, "='", name, "' is none that convlab has"));
}

constexpr const char* kDTypeNames[] = {"float32", "float64", "float16", "bfloat16"};  // by DType

const AlgorithmRow& row_of(int64_t algo) {
  if (const AlgorithmRow* row = find_algorithm(algo)) return *row;
  throw std::invalid_argument(message("algo number ", algo, " is not in the table of algorithms"));
}

Pass pass_of(const std::string& name) { return Pass(index_of("pass", name, kPassNames)); }
DType dtype_of(const std::string& name) { return DType(index_of("dtype", name, kDTypeNames)); }

Backend backend_of(const std::string& name) { return Backend(index_of("backend", name, kBackendNames)); }

Problem problem_of(const std::string& pass, const std::string& dtype, const Sizes& x, const Sizes& w,
                   const Sizes& geometry, bool channels_last, int multiprocessors, int capability) {
  return {.pass = pass_of(pass),
          .dtype = dtype_of(dtype),
          .g = make_conv2d("conv2d", x, w, geometry),
          .channels_last = channels_last,
          .layouts = {channels_last, channels_last, channels_last},
          .capability = capability,
          .multiprocessors = multiprocessors};
}

std::string refusal_of(int64_t algo, const std::string& backend, Problem p) {
  algo %= kWithTile;
  p.rounding = rounding_of(algo);
  return refusal(row_of(algo % kWithTf32), backend_of(backend), p);
}

std::string choice_of(const std::string& backend, const Problem& p, int64_t automatic) {
  return backend_of(backend) == Backend::cpu ? resolve<CpuRung>(automatic, p).row->name
                                             : resolve<CudaRung>(automatic, p).row->name;
}

py::dict facts_of(const Plan& plan) {
  py::dict facts;
  facts["tile"] = plan.tile.M ? py::object(py::make_tuple(plan.tile.M, plan.tile.N, plan.tile.K)) : py::none();
  facts["product"] = plan.tile.M ? py::object(py::make_tuple(plan.rows, plan.columns, plan.steps)) : py::none();
  facts["grid"] = py::make_tuple(plan.grid[0], plan.grid[1], plan.grid[2]);
  facts["threads"] = plan.threads;
  facts["useful"] = plan.useful > 0 ? py::object(py::float_(plan.useful)) : py::none();
  facts["plane"] = plan.plane[0] ? py::object(py::make_tuple(plan.plane[0], plan.plane[1])) : py::none();
  facts["slices"] = plan.slices;
  facts["images"] = plan.images;
  facts["precision"] = plan.precision == Precision::none ? py::object(py::none())
                                                         : py::object(py::str(kPrecisionNames[int(plan.precision)]));
  facts["workspace"] = plan.workspace;
  return facts;
}

py::dict facts_of(const CpuPlan& plan) {
  py::dict facts;
  facts["kernels"] = instruction_set().name;
  facts["strip"] = py::make_tuple(plan.images_per_strip, plan.rows_per_strip);
  facts["pieces"] = plan.pieces;
  facts["slices"] = plan.slices;
  facts["workspace"] = plan.workspace;
  facts["scratch"] = plan.scratch;
  return facts;
}

py::dict plan_of(int64_t algo, const std::string& backend, const Problem& p) {
  row_of(algo % kWithTf32);
  if (backend_of(backend) == Backend::cpu) return facts_of(resolve<CpuRung>(algo, p).plan);
  const auto chosen = resolve<CudaRung>(algo, p);
  const Plan& plan = chosen.plan;
  py::dict facts = facts_of(plan);
  const auto& gate = std::string(chosen.row->name) == "tensor_core" ? kTensorCoreGate : kWarpgroupGate;
  if (plan.precision != Precision::none) facts["gated"] = !(gate[int(plan.precision)] & bit(p.pass));
  return facts;
}

std::vector<int> tile_numbers(int64_t algo, Problem p) {
  algo %= kWithTile;
  p.rounding = rounding_of(algo);
  const AlgorithmRow& row = row_of(algo % kWithTf32);
  std::vector<int> numbers;
  const unsigned tiles = refusal(row, Backend::cuda, p).empty() ? tiles_of(row, p) : 0;
  for (int i = 0; i < int(std::bit_width(tiles)); i++)
    if (tiles >> i & 1) numbers.push_back(i + 1);
  return numbers;
}

// A matrix of Fraction as lists of (numerator, denominator)
template <class M> py::list rows_of(const M& matrix) {
  py::list rows;
  for (const auto& row : matrix) {
    py::list entries;
    for (const auto& f : row) entries.append(py::make_tuple(f.over, f.under));
    rows.append(entries);
  }
  return rows;
}

template <int m, int n> py::dict winograd_matrices_of() {
  static constexpr winograd::AllMatrices<m, n> all;
  py::dict matrices;
  matrices["input"] = rows_of(all.input), matrices["filter"] = rows_of(all.filter);
  matrices["output"] = rows_of(all.output);
  return matrices;
}

py::dict winograd_matrices(int m, int n) {
  if (m == 2) return n == 1 ? winograd_matrices_of<2, 1>() : winograd_matrices_of<2, 2>();
  return n == 1   ? winograd_matrices_of<4, 1>()
         : n == 2 ? winograd_matrices_of<4, 2>()
         : n == 3 ? winograd_matrices_of<4, 3>()
                  : winograd_matrices_of<4, 4>();
}

std::pair<int64_t, int64_t> winograd_counts(int m, const Problem& p) {
  const winograd::Counts counts =
      winograd::count(m == 2 ? winograd::tiling_of<2>(p) : winograd::tiling_of<4>(p), p.pass == Pass::wgrad);
  return {counts.products, counts.additions};
}

std::pair<int, int> conv2d_output_size(const Sizes& x, const Sizes& w, const Sizes& geometry) {
  const Conv2d g = make_conv2d("conv2d", x, w, geometry);
  return {g.P, g.Q};
}

py::dict build_info() {
  py::dict info;
  info["torch"] = CONVLAB_BUILD_TORCH;
  info["nvcc"] = CONVLAB_BUILD_NVCC;
  info["cuda_archs"] = CONVLAB_BUILD_ARCHS;
  info["cxx"] = CONVLAB_BUILD_CXX;
  return info;
}

}  // namespace
}  // namespace convlab

PYBIND11_MODULE(_lab, m) {
  m.doc() =
      "The torch-free side of convlab: the table of algorithms, the geometry of problems, how the library was built.";
  m.def("algorithms", &convlab::table,
        "Rows (number, name, {backend: (technique, [passes])}) of the table of algorithms.");
  py::class_<convlab::Problem>(m, "Problem", "A pass of a convolution, without its data.")
      .def(py::init(&convlab::problem_of), "Raises RuntimeError for arguments that do not fit together.");
  m.def("refusal", &convlab::refusal_of, "Why an algorithm cannot do a pass of a convolution; empty when it can.");
  m.def("winograd_matrices", &convlab::winograd_matrices,
        "input, filter and output of winograd's tiles (m: 2 or 4) with n of m outputs along a side.");
  m.def("winograd_counts", &convlab::winograd_counts,
        "(products, additions of the transformations) of a pass in tiles of m x m outputs, m 2 or 4.");
  m.def("choice", &convlab::choice_of,
        "The name of the algorithm that a pass of a convolution gets from \"auto\", by a number of `automatic`.");
  m.def(
      "plan", &convlab::plan_of,
      "How an algorithm does a pass of a convolution. CUDA: {tile, product: (M, N, K) or None, grid, threads, useful, "
      "plane, slices,\n"
      "images, precision, workspace} and, of tensor cores, gated. CPU: {kernels, strip: (images, rows), pieces, "
      "slices, workspace, scratch}.");
  m.def("tiles", &convlab::tile_numbers,
        "Numbers of the tiles that an algorithm chooses among for a pass on CUDA: + n kWithTile asks for one.");
  m.def("conv2d_output_size", &convlab::conv2d_output_size,
        "(P, Q) of a convolution. Raises RuntimeError for arguments that do not fit together.");
  convlab::bind_simulator(m);
  m.def("build_info", &convlab::build_info, "The versions this library was built with.");
}
