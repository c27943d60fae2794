// Convolution, joint register and shared-memory tiling: implicit GEMM with up to 8 x 16 outputs a thread.
//
// What it does    a thread keeps a tile of sums in registers. A step of the product loads 8 + 16 floats from shared
//                 memory, 16 bytes an instruction, and makes 128 multiply-adds of them; loads from device memory for
//                 the next tile are under way meanwhile. The tile is chosen by the shape of the product (tile_shapes.h,
//                 conv2d_gemm_plan.h). Four neighbouring outputs are stored with one instruction where they lie side by
//                 side.
// Against implicit_gemm  a fifth of a shared-memory load for each multiply-add instead of two, and an eighth of the
//                        global loads.
// What bounds it  issue slots: six of seven instructions of the largest tile's loop are multiply-adds, of 64 x 64 two
//                 of three.
// In a block      windows of 2 x 2 are fours of columns, which a thread has: activation and maximum are made of the sums in
//                 registers. A warp's pixels are then in two rows, and where those of one would fill whole sectors, its
//                 loads touch up to a sixth more of them.
// What is next    asynchronous copies past the registers, so that more loads are under way, and tensor cores.
// What is counted  by the simulator; tools/kernel_notes.py writes it here, and says how to read it
//                              x      w     dy   workspace   sectors   at least   conflicts   shared
//   LeNet C3    forward     12.8   25.0                         6.74       4.27        1.00     3.60
//   LeNet C3    dgrad               131   25.0                  3.35       2.63        1.00     18.1
//   LeNet C3    wgrad       13.6          5.00        0.68      4.66       3.07        1.00     3.93
//   ResNet-20   forward     16.5   2.00                         4.00       4.00        1.00     3.54
//   ResNet-20   dgrad              2.00   16.5                  4.46       4.00        1.00     3.55
//   ResNet-20   wgrad       16.5          9.00                  3.59       3.18        1.00     3.67
#include "kernels/block_ending.h"
#include "kernels/conv2d_gemm_launch.h"
#include "kernels/conv2d_register_tiled_plan.h"

namespace convlab {
namespace {

// The forward's product, and what a block makes of it. Windows of 2 x 2 are columns in fours, tap by tap, which one
// thread has: of D, a column is a window. What no window covers is no column.
template <class T> struct BlockMap {
  ForwardMap<T> convolution;
  BlockOutput<T> to;

  struct Part : ForwardMap<T>::Part {
    BlockOutput<T> to;

    __device__ Row row(int m) const { return {m * this->g.Cg() * this->g.R * this->g.S, m * to.P * to.Q}; }
    __device__ Column column(long long n) const {
      const Conv2d& g = this->g;
      const int taps = to.pools() ? 4 : 1, tap = int(n % taps), pq = int(n / taps % (to.P * to.Q));
      const long long image = n / taps / (to.P * to.Q);
      const int p = pq / to.Q * to.ending.R + tap / 2, q = pq % to.Q * to.ending.S + tap % 2;
      const int h = p * g.stride_h - g.pad_h, v = q * g.stride_w - g.pad_w;
      return {image * g.C * g.H * g.W + (long long)h * g.W + v, image * g.K * to.P * to.Q + pq, h, v};
    }
    // n columns, which are a window or outputs side by side
    template <int n> __device__ void store(long long d, const Vector<float, n>& sums) const {
      Ending ending = to.ending;
      ending.activation = Activation(settled(int(ending.activation)));
      Winner<T> window;
      Vector<T, n> values;
      Vector<unsigned char, n> bytes;
#pragma unroll
      for (int i = 0; i < n; i++) {
        Winner<T> one;
        one.take(ending, float(T(sums.at[i])), 0);
        window.meet(one, i);
        values.at[i] = T(one.value), bytes.at[i] = (unsigned char)one.byte;
      }
      const bool keeps = settled(to.winners != nullptr);
      if (settled(to.pools())) {
        to.y[d] = T(window.value);
        if (keeps) to.winners[d] = (unsigned char)window.byte;
      } else {
        store_vector(to.y + d, values);
        if (keeps) store_vector(to.winners + d, bytes);
      }
    }
  };

  // z: the group
  __device__ Part part(int z) const {
    Part p;
    static_cast<typename ForwardMap<T>::Part&>(p) = convolution.part(z);
    const long long before = (long long)z * convolution.g.Kg() * to.P * to.Q;
    p.to = to, p.to.y += before, p.to.winners += to.winners ? before : 0;
    if (to.pools()) p.columns = (long long)convolution.g.N * to.P * to.Q * 4, p.fours = true;
    return p;
  }
};

// Calls f(type_tag<Tile>{}, type_tag<T>{}) with the tile of the plan.
template <const auto& shapes, int i = 0, class F> void dispatch_tile(const Plan& plan, DType dtype, const F& f) {
  constexpr int kCount = sizeof shapes / sizeof shapes[0];
  if (plan.variant != i) {
    if constexpr (i + 1 < kCount) dispatch_tile<shapes, i + 1>(plan, dtype, f);
    return;
  }
  constexpr TileShape shape = shapes[i];
  const type_tag<Tile<shape.M, shape.N, shape.K, shape.rows, shape.columns>> tile;
  if constexpr (i >= for_16_bits(shapes).first) {
    if (dtype == DType::float16) return f(tile, type_tag<float16>{});
    if (dtype == DType::bfloat16) return f(tile, type_tag<bfloat16>{});
  }
  f(tile, type_tag<float>{});
}

void forward(const Plan& plan, const Conv2d& g, DType dtype, const void* x, const void* w, const void* bias, void* y,
             void*, Stream stream) {
  dispatch_tile<kImageTiles>(plan, dtype, [&](auto tile, auto element) {
    launch_gemm_forward<typename decltype(tile)::type, typename decltype(element)::type>(plan, without_places(g), x, w,
                                                                                         bias, y, stream);
  });
}

void block(const Plan& plan, const Conv2d& g, const Ending& e, const Pool2d& pool, DType dtype, const void* x,
           const void* w, const void* bias, void* y, void* winners, Stream stream) {
  dispatch_tile<kImageTiles>(plan, dtype, [&](auto tile, auto element) {
    using T = typename decltype(element)::type;
    const ForwardMap<T> convolution{without_places(g), static_cast<const T*>(x), static_cast<const T*>(w),
                                    static_cast<const T*>(bias), static_cast<T*>(y)};
    launch(gemm_kernel<typename decltype(tile)::type, BlockMap<T>>, grid_of(plan), dim3(plan.threads), 0, stream,
           BlockMap<T>{convolution, block_output<T>(e, pool, y, winners)});
  });
}

void dgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* w, void* dx, void*,
           Stream stream) {
  dispatch_tile<kImageTiles>(plan, dtype, [&](auto tile, auto element) {
    launch_gemm_dgrad<typename decltype(tile)::type, typename decltype(element)::type>(plan, without_places(g), dy, w,
                                                                                       dx, stream);
  });
}

void wgrad(const Plan& plan, const Conv2d& g, DType dtype, const void* dy, const void* x, void* dw, void* db,
           void* workspace, Stream stream) {
  dispatch_tile<kFilterTiles>(plan, dtype, [&](auto tile, auto element) {
    launch_gemm_wgrad<typename decltype(tile)::type, typename decltype(element)::type>(plan, without_places(g), dy, x,
                                                                                       dw, db, workspace, stream);
  });
}

const ConvKernels conv2d_register_tiled(kRegisterTiled, forward, dgrad, wgrad, block);

}  // namespace
}  // namespace convlab
