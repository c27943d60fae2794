// Convolution, tiled: the input goes through shared memory, the filters through constant memory.
//
//   out[n, map, u, v] = bias[map] + sum over d, i, j of in[n, d, u stride + start + i step, ...] filter[map, d, i, j]
//
// forward is this with in = x, out = y. So is dgrad, with in = dy, out = dx, maps and depth exchanged and the taps
// walked from the last to the first: the flipped filter. With a stride, dgrad's positions fall into classes that each
// see taps of their own (geometry/residues.h): a class is a dense correlation at stride 1, and goes to blocks of its
// own. conv2d_tiled_plan.h has the numbers.
//
// What it does    a block makes 16 x 16 positions of four maps. It loads the tile of the input that they see, halo
//                 included, a stage of planes at a time; zeros outside. A thread makes one position of the four maps.
//                 All threads want the same weight at the same time, which is what constant memory is for: one access
//                 serves the warp.
// Against direct  an element of x is loaded from device memory once a tile instead of up to R S times for each map, and
//                 the loop has no tests for the edges.
// What bounds it  loads still: one from shared memory and four of constants for four multiply-adds. Filters beyond 64
//                 KB come in chunks, each a copy and a launch, and a chunk loads the input again or adds to the output.
//                 Planes smaller than 16 x 16 leave threads idle.
// What is next    give up the picture for the matrix: a product can be tiled along all of its dimensions at once.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x     dy   sectors   at least   conflicts   shared
//   LeNet C3    forward     4.00             3.68       3.68        1.00     2.56
//   LeNet C3    dgrad              2.00      3.21       3.21        1.00     3.41
//   ResNet-20   forward     8.00             4.00       4.00        1.00     1.00
//   ResNet-20   dgrad              8.00      4.00       4.00        1.00     1.00
#include "kernels/conv2d_tiled_plan.h"

#include "device/constant_memory.h"
#include "device/vector.h"
#include "kernels/launchers.h"

namespace convlab {
namespace {

__constant__ float constant_filters[kConstantFloats];  // the chunk's: [groups, filters, channels, R, S]

// What of the problem the filters in constant memory are for.
struct Chunk {
  int group0, filter0, channel0;  // the first; filter and channel inside their group
  int groups, filters, channels;  // how many; filters and channels of each group
};

// Planes of a group that a chunk has filters for: `count` from `first` on, of `in_all`. In constant memory the weights
// of neighbouring planes lie `apart`.
struct PlanesOfGroup {
  int first, count, in_all, apart;
};
__device__ __forceinline__ PlanesOfGroup channels_of(const Conv2d& g, const Chunk& c) {
  return {c.channel0, c.channels, g.Cg(), g.R * g.S};
}
__device__ __forceinline__ PlanesOfGroup filters_of(const Conv2d& g, const Chunk& c) {
  return {c.filter0, c.filters, g.Kg(), c.channels * (g.R * g.S)};
}

// What a block sees of every input plane, halo included: rows x columns from (top, left) on.
struct View {
  int top, left, rows, columns, pitch;
};

// forward: in is x [N, C, H, W], bias is [K] or null, out is y [N, K, P, Q]. dgrad: in is dy, bias null, out is dx.
// grid (n and the tile, group and maps, residue class), block (16, rows of a tile)
template <bool forward, int kMaps>
__global__ void __launch_bounds__(kTiledThreads, kTiledResident)
    tiled_kernel(Conv2d g, Chunk chunk, int stage, const float* __restrict__ in, const float* __restrict__ bias,
                 float* __restrict__ out) {
  DYNAMIC_SHARED(float, tile);  // [stage, rows, pitch]
  const int tx = threadIdx.x, ty = threadIdx.y, tile_rows = blockDim.y;
  const TiledAxis h = tiled_height(forward, blockIdx.z / g.stride_w, g),
                  v = tiled_width(forward, blockIdx.z % g.stride_w, g);

  const int tiles_h = (most_places(h) + tile_rows - 1) / tile_rows;
  const int tiles_v = (most_places(v) + kTileSide - 1) / kTileSide;
  const int n = blockIdx.x / tiles_v / tiles_h;
  const int u0 = blockIdx.x / tiles_v % tiles_h * tile_rows, v0 = blockIdx.x % tiles_v * kTileSide;
  if (u0 >= h.places || v0 >= v.places) return;  // classes differ in size by a position

  const PlanesOfGroup maps = forward ? filters_of(g, chunk) : channels_of(g, chunk);
  const PlanesOfGroup depth = forward ? channels_of(g, chunk) : filters_of(g, chunk);
  const int bundles = (maps.count + kMaps - 1) / kMaps;
  const int group = blockIdx.y / bundles, map0 = blockIdx.y % bundles * kMaps;
  int filters[kMaps];  // where the maps' filters begin; for maps past the last, its own
#pragma unroll
  for (int m = 0; m < kMaps; m++)
    filters[m] = group * chunk.filters * (chunk.channels * (g.R * g.S)) + min(map0 + m, maps.count - 1) * maps.apart +
                 h.first_tap * g.S + v.first_tap;

  const int columns = int(tiled_extent(v, kTileSide));
  const View view = {u0 * h.stride + h.start, v0 * v.stride + v.start, int(tiled_extent(h, tile_rows)), columns,
                     int(tiled_pitch(columns))};
  const long long in_plane = (long long)h.inputs * v.inputs, out_plane = (long long)h.outputs * v.outputs;
  in += ((long long)n * g.groups * depth.in_all + (chunk.group0 + group) * depth.in_all + depth.first) * in_plane;
  const float* corner = tile + (ty * h.stride) * view.pitch + tx * v.stride;  // of this thread's window

  float sums[kMaps] = {};
  for (int d0 = 0; d0 < depth.count; d0 += stage) {
    const int planes_here = min(stage, depth.count - d0);
    for (int d = 0; d < planes_here; d++, in += in_plane)
      for (int row = ty; row < view.rows; row += tile_rows)
        for (int column = tx; column < view.columns; column += kTileSide) {
          const int i = view.top + row, j = view.left + column;
          const bool inside = unsigned(i) < unsigned(h.inputs) && unsigned(j) < unsigned(v.inputs);
          tile[(d * view.rows + row) * view.pitch + column] = load_if(inside, in + (inside ? i * v.inputs + j : 0));
        }
    __syncthreads();
    for (int d = 0; d < planes_here; d++)
      for (int i = 0; i < h.taps; i++)
        for (int j = 0; j < v.taps; j++) {
          const float x = corner[(d * view.rows + i * h.step) * view.pitch + j * v.step];
          const int tap = (d0 + d) * depth.apart + i * h.next_tap * g.S + j * v.next_tap;
#pragma unroll
          for (int m = 0; m < kMaps; m++) sums[m] += x * constant_filters[filters[m] + tap];
        }
    __syncthreads();
  }

  const int u = u0 + ty, w = v0 + tx;
  if (u >= h.places || w >= v.places) return;
  const int first_map = (chunk.group0 + group) * maps.in_all + maps.first + map0;
  out += ((long long)n * g.groups * maps.in_all + first_map) * out_plane +
         ((h.first + u * h.every) * v.outputs + v.first + w * v.every);
#pragma unroll
  for (int m = 0; m < kMaps; m++, out += out_plane) {
    if (map0 + m >= maps.count) break;
    const bool adds = depth.first > 0;  // to what the chunks before have stored
    *out = sums[m] + (adds ? *out : bias ? bias[first_map + m] : 0.0f);
  }
}

// For the error when a graph is captured: the other algorithms can be captured.
std::string who() {
  std::string others;
  for (const AlgorithmRow& row : algorithms())
    if (row.cuda.rung && row.cuda.rung != &kTiled) others += (others.empty() ? "" : ", ") + std::string(row.name);
  return "convlab: conv2d algo 'tiled' (unlike " + others + ")";
}

// Chunk by chunk: its filters to constant memory, its kernel. w [K, C/groups, R, S]: a chunk lies in it in one piece.
template <bool forward>
void launch_tiled(const Plan& plan, const Conv2d& g, const void* in, const void* w, const void* bias, void* out,
                  Stream stream) {
  const ConstantMemoryTurn turn(stream, who);
  const int tile_rows = plan.threads / kTileSide, maps = kTiledMaps[plan.variant];
  const auto launch_chunk = [&](const Chunk& c) {
    const long long taps = (long long)g.R * g.S,
                    first = (((long long)c.group0 * g.Kg() + c.filter0) * g.Cg() + c.channel0) * taps;
    const size_t bytes = size_t(c.groups * c.filters * c.channels * taps) * sizeof(float);
    if (bytes > 0) COPY_TO_SYMBOL(constant_filters, static_cast<const float*>(w) + first, bytes, stream);
    const TiledGrid grid = tiled_grid(forward, g, {c.groups, c.filters, c.channels}, tile_rows, maps);
    launch(plan.variant ? tiled_kernel<forward, kTiledMaps[1]> : tiled_kernel<forward, kTiledMaps[0]>,
           dim3(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z)), dim3(kTileSide, tile_rows), size_t(plan.shared),
           stream, g, c, plan.tile.K, static_cast<const float*>(in), static_cast<const float*>(bias),
           static_cast<float*>(out));
  };
  // an empty sum stores zeros too, so there is always one chunk
  const int groups = plan.chunk.groups, filters = std::max(plan.chunk.filters, 1),
            channels = std::max(plan.chunk.channels, 1);
  for (int group = 0; group < g.groups; group += groups)
    for (int filter = 0; filter == 0 || filter < g.Kg(); filter += filters)
      for (int channel = 0; channel == 0 || channel < g.Cg(); channel += channels)
        launch_chunk({group, filter, channel, std::min(groups, g.groups - group), std::min(filters, g.Kg() - filter),
                      std::min(channels, g.Cg() - channel)});
}

void forward(const Plan& plan, const Conv2d& g, DType, const void* x, const void* w, const void* bias, void* y, void*,
             Stream stream) {
  launch_tiled<true>(plan, g, x, w, bias, y, stream);
}

void dgrad(const Plan& plan, const Conv2d& g, DType, const void* dy, const void* w, void* dx, void*, Stream stream) {
  launch_tiled<false>(plan, g, dy, w, nullptr, dx, stream);
}

const ConvKernels conv2d_tiled(kTiled, forward, dgrad, nullptr);

}  // namespace
}  // namespace convlab
