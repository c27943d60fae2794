#include "algorithms.h"

#include <bit>
#include <iterator>
#include <stdexcept>
#include <type_traits>

#include "cpu/conv2d/amx/amx_plan.h"
#include "cpu/conv2d/depthwise/depthwise_plan.h"
#include "cpu/conv2d/direct/direct_plan.h"
#include "cpu/conv2d/reference/reference_plan.h"
#include "cpu/conv2d/register_tiled/register_tiled_plan.h"
#include "cpu/conv2d/winograd/winograd_plan.h"
#include "kernels/conv2d_depthwise_plan.h"
#include "kernels/conv2d_direct_plan.h"
#include "kernels/conv2d_im2col_gemm_plan.h"
#include "kernels/conv2d_implicit_gemm_plan.h"
#include "kernels/conv2d_register_tiled_plan.h"
#include "kernels/conv2d_small_filter_plan.h"
#include "kernels/conv2d_tensor_core_plan.h"
#include "kernels/conv2d_tiled_plan.h"
#include "kernels/conv2d_warpgroup_plan.h"
#include "remembered.h"
#include "tiles.h"

namespace convlab {
namespace {

constexpr unsigned kForwardAndDgrad = bit(Pass::forward) | bit(Pass::dgrad);

// The numbers travel through the operators' schemas: never reuse one. "auto" looks from the last row to the first.
constexpr AlgorithmRow kAlgorithms[] = {
    {.id = 1,
     .name = "reference",
     .cpu = {"sequential loops, as a course writes them down", kAllPasses, &reference::rung}},
    {.id = 2,
     .name = "direct",
     .cpu = {"vectors along rows, which are copied between zeros; a tile of channels in registers", kAllPasses,
             &direct::rung},
     .cuda = {"each output element by the definition, in parallel", kAllPasses, &kDirect}},
    {.id = 3,
     .name = "tiled",
     .cuda = {"input tiles in shared memory, filters in constant memory", kForwardAndDgrad, &kTiled}},
    {.id = 4,
     .name = "im2col_gemm",
     .cuda = {"unrolls the input into a matrix, then multiplies in shared-memory tiles", kAllPasses, &kIm2colGemm}},
    {.id = 5,
     .name = "implicit_gemm",
     .cuda = {"a matrix product in shared-memory tiles, unrolled while they are loaded", kAllPasses, &kImplicitGemm}},
    {.id = 6,
     .name = "register_tiled",
     .cpu = {"a matrix product unrolled by addresses, with a tile of outputs in registers", kAllPasses,
             &register_tiled::rung},
     .cuda = {"the same product, with a tile of outputs in registers", kAllPasses, &kRegisterTiled}},
    {.id = 7,
     .name = "small_filter",
     .cuda = {"kernels compiled for the filters of LeNet, a course's network and CIFAR's first layer", kAllPasses,
              &kSmallFilter}},
    {.id = 8,
     .name = "depthwise",
     .cpu = {"each channel, or group of a few, by itself, a run of positions in registers", kAllPasses,
             &depthwise::rung},
     .cuda = {"each channel by itself, a run of positions in registers", kAllPasses, &kDepthwise}},
    {.id = 9,
     .name = "winograd_2x2",
     .cpu = {"tiles of 2 x 2 outputs by 16 products a channel instead of 36", kAllPasses, &winograd::rung_2x2}},
    {.id = 10,
     .name = "winograd_4x4",
     .cpu = {"tiles of 4 x 4 outputs by 36 products a channel instead of 144", kAllPasses, &winograd::rung_4x4}},
    {.id = 11,
     .name = "tensor_core",
     .cuda = {"the same product by tensor cores, fed by asynchronous copies", kAllPasses, &kTensorCore}},
    {.id = 12,
     .name = "warpgroup",
     .cuda = {"the same product by warpgroups, whose operands stay in shared memory", kAllPasses, &kWarpgroup}},
    {.id = 13,
     .name = "amx",
     .cpu = {"bfloat16 in the tile registers of AMX, 8,192 products an instruction", kAllPasses, &amx::rung}},
};

// Those that choose among tiles: which there are, and the plan with one, counted from 1.
struct ChoosesTile {
  const CudaRung* rung;
  unsigned (*tiles)(const Problem&);
  Plan (*plan)(const Problem&, int tile);
};
constexpr ChoosesTile kChooseTile[] = {{&kRegisterTiled, register_tiled_tiles, register_tiled_plan_with},
                                       {&kTensorCore, tensor_core_tiles, tensor_core_plan_with},
                                       {&kWarpgroup, warpgroup_tiles, warpgroup_plan_with}};

constexpr bool numbers_are_unique() {
  for (const AlgorithmRow& a : kAlgorithms)
    for (const AlgorithmRow& b : kAlgorithms)
      if (&a != &b && a.id == b.id) return false;
  return true;
}
static_assert(numbers_are_unique(), "two algorithms have one number");

template <class Rung> const OnBackend<Rung>& on(const AlgorithmRow& row) {
  if constexpr (std::is_same_v<Rung, CpuRung>) return row.cpu;
  else return row.cuda;
}

template <class Rung> bool can(const OnBackend<Rung>& a, const Problem& p) {
  return (a.passes & bit(p.pass)) && a.rung->can(p);
}

template <class Rung> std::string why_not(const OnBackend<Rung>& a, Backend backend, const Problem& p) {
  if (!(a.passes & bit(p.pass)))
    return std::string("has no ") + kPassNames[int(p.pass)] + " for " + kBackendNames[int(backend)] + " tensors";
  return a.rung->can(p) ? "" : a.rung->why_not(p);
}

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument("conv2d: " + why); }

const ChoosesTile* chooser_of(const AlgorithmRow& row) {
  for (const ChoosesTile& t : kChooseTile)
    if (t.rung == row.cuda.rung) return &t;
  return nullptr;
}

Plan plan_with_tile(const AlgorithmRow& row, const Problem& p, int64_t tile) {
  const unsigned tiles = tiles_of(row, p);
  if (tile <= std::bit_width(tiles) && tiles >> (tile - 1) & 1) return chooser_of(row)->plan(p, int(tile));
  refuse(std::string("algo '") + row.name + "' has no tile " + std::to_string(tile) + " for this");
}

// For "auto". Not even the simplest can do some: the grid of `direct` has an end.
template <class Rung> const AlgorithmRow& best(Backend backend, const Problem& p) {
  const AlgorithmRow* simplest = nullptr;
  for (const AlgorithmRow* row = std::end(kAlgorithms); row-- != kAlgorithms;) {
    const OnBackend<Rung>& a = on<Rung>(*row);
    if (!a.rung || !a.rung->best) continue;
    if (can(a, p) && a.rung->best(p)) return *row;
    simplest = row;
  }
  refuse(std::string("no algorithm can do this: '") + simplest->name + "' " + refusal(*simplest, backend, p));
}

template <class Rung> Chosen<Rung> resolved(int64_t requested, const Problem& p) {
  constexpr Backend backend = std::is_same_v<Rung, CpuRung> ? Backend::cpu : Backend::cuda;
  Problem allowed = p;
  if (requested <= 0 && requested >= int64_t(Rounding::bf16)) {
    allowed.rounding = Rounding(requested);
    const AlgorithmRow& row = best<Rung>(backend, allowed);
    return {&row, on<Rung>(row).rung, on<Rung>(row).rung->plan(allowed)};
  }
  const int64_t tile = requested / kWithTile;
  requested %= kWithTile;
  allowed.rounding = rounding_of(requested);
  requested %= kWithTf32;
  const AlgorithmRow* row = find_algorithm(requested);
  if (!row) refuse("algo number " + std::to_string(requested) + " is not in the table of algorithms");
  const OnBackend<Rung>& chosen = on<Rung>(*row);
  if (!can(chosen, allowed)) refuse(std::string("algo '") + row->name + "' " + refusal(*row, backend, allowed));
  if constexpr (backend == Backend::cuda)
    if (tile) return {row, chosen.rung, plan_with_tile(*row, allowed, tile)};
  return {row, chosen.rung, chosen.rung->plan(allowed)};
}

// All that a choice and a plan depend on
struct Asked {
  int64_t requested;
  Conv2d g;
  int pass, dtype, lie, rounding, capability, multiprocessors;
};

Asked asked(int64_t requested, const Problem& p) {
  const auto& [pass, dtype, g, channels_last, layouts, rounding, capability, multiprocessors] = p;
  const int lie = channels_last | layouts.first << 1 | layouts.second << 2 | layouts.output << 3;
  return {requested, g, int(pass), int(dtype), lie, int(rounding), capability, multiprocessors};
}

// A CPU's plan has tables of an axis's length, so those of very long rows are made anew.
template <class Rung> Chosen<Rung> kept(int64_t requested, const Problem& p) {
  const auto resolve = [&] { return resolved<Rung>(requested, p); };
  const bool is_long = int64_t(p.g.H) + p.g.W + p.g.P + p.g.Q > kLongestRemembered;
  return std::is_same_v<Rung, CpuRung> && is_long ? resolve() : *remembered(asked(requested, p), resolve);
}

}  // namespace

AlgorithmTable algorithms() { return {std::begin(kAlgorithms), std::end(kAlgorithms)}; }

const AlgorithmRow* find_algorithm(int64_t id) {
  for (const AlgorithmRow& row : kAlgorithms)
    if (row.id == id) return &row;
  return nullptr;
}

std::string refusal(const AlgorithmRow& row, Backend backend, const Problem& p) {
  return backend == Backend::cpu ? why_not(row.cpu, backend, p) : why_not(row.cuda, backend, p);
}

unsigned tiles_of(const AlgorithmRow& row, const Problem& p) {
  const ChoosesTile* chooser = chooser_of(row);
  return chooser ? chooser->tiles(p) : 0;
}

template <> Chosen<CpuRung> resolve(int64_t requested, const Problem& p) { return kept<CpuRung>(requested, p); }
template <> Chosen<CudaRung> resolve(int64_t requested, const Problem& p) { return kept<CudaRung>(requested, p); }

}  // namespace convlab
