// Launching the three maps of conv2d_as_gemm.h with a given tile: what the matrix rungs share.
#pragma once
#include "kernels/add_slices.h"
#include "kernels/conv2d_as_gemm.h"
#include "kernels/fill.h"
#include "kernels/launchers.h"

namespace convlab {

inline dim3 grid_of(const Plan& plan) { return dim3(plan.grid[0], plan.grid[1], plan.grid[2]); }

template <class Tile, class T>
void launch_gemm_forward(const Plan& plan, const Conv2d& g, const void* x, const void* w, const void* bias, void* y,
                         Stream stream) {
  launch(gemm_kernel<Tile, ForwardMap<T>>, grid_of(plan), dim3(plan.threads), 0, stream,
         ForwardMap<T>{g, static_cast<const T*>(x), static_cast<const T*>(w), static_cast<const T*>(bias),
                       static_cast<T*>(y)});
}

// Where a stride is larger than the filter, part of dx meets no tap: zeros everywhere, and the product over the rest.
template <class Tile, class T>
void launch_gemm_dgrad(const Plan& plan, const Conv2d& g, const void* dy, const void* w, void* dx, Stream stream) {
  if (classes_of(g) < g.stride_h * g.stride_w)
    fill_with_zeros((long long)g.N * g.C * g.H * g.W, static_cast<T*>(dx), stream);
  launch(gemm_kernel<Tile, DgradMap<T>>, grid_of(plan), dim3(plan.threads), 0, stream,
         DgradMap<T>{g, static_cast<const T*>(dy), static_cast<const T*>(w), static_cast<T*>(dx)});
}

// The slices alone: partial [slices, K, C/groups, R, S] and, unless null, partial_db [slices, K].
template <class Tile, class T>
void launch_gemm_slices(const Plan& plan, const Conv2d& g, const void* dy, const void* x, float* partial,
                        float* partial_db, Stream stream) {
  launch(gemm_kernel<Tile, WgradMap<T>>, grid_of(plan), dim3(plan.threads), 0, stream,
         WgradMap<T>{g, static_cast<const T*>(dy), static_cast<const T*>(x), partial, partial_db, plan.slices,
                     plan.slice});
}

// workspace: the slices, of dw and then of db
template <class Tile, class T>
void launch_gemm_wgrad(const Plan& plan, const Conv2d& g, const void* dy, const void* x, void* dw, void* db,
                       void* workspace, Stream stream) {
  const long long filters = (long long)g.K * g.Cg() * g.R * g.S;
  float* partial = slices_at(plan.slices, static_cast<float*>(workspace), static_cast<T*>(dw));
  float* after = static_cast<float*>(workspace) + plan.slices * filters;
  float* partial_db = db ? slices_at(plan.slices, after, static_cast<T*>(db)) : nullptr;
  launch_gemm_slices<Tile, T>(plan, g, dy, x, partial, partial_db, stream);
  add_slices(plan.slices, filters, partial, static_cast<T*>(dw), stream);
  if (db) add_slices(plan.slices, g.K, partial_db, static_cast<T*>(db), stream);
}

}  // namespace convlab
