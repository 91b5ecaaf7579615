/* Shared by the CUDA kernels of optimisers. An optimiser is a struct with the buffers of a step and
 *
 *   struct constants;                                                         what does not depend on the element
 *   __device__ static constants constants_of(const pg_hyper &h);              in float64, as on the CPU
 *   template <int N> __device__ void step(const constants &c, int64_t j) const;   N elements from j on
 *
 * in float32 (PG_REAL 0). */
#ifndef PERIGEE_KERNELS_CUDA_UPDATE_H
#define PERIGEE_KERNELS_CUDA_UPDATE_H

#include "cuda.h"

#if PG_REAL == 0

/* A step's settings and the gradient's squared norm. */
struct pg_hyper {
  const void *numbers;
  bool wide; /* float64, not float32 */
  const float *square_sum;
};

static __device__ __forceinline__ double pg_hyper_number(const pg_hyper &h, int k) {
  return h.wide ? static_cast<const double *>(h.numbers)[k] : (double)static_cast<const float *>(h.numbers)[k];
}

/* The factor of all gradients so that their norm is at most `clip`; 0: no clipping. */
static __device__ __forceinline__ double pg_clip_scale(double clip, const pg_hyper &h) {
  double factor = clip / (sqrt((double)*h.square_sum) + 1e-6);
  return clip > 0 && factor < 1 ? factor : 1;
}

template <int N>
static __device__ __forceinline__ void pg_store_working(bfloat16 *to, const float p[N]) {
  if constexpr (N == 1) *to = bfloat16{(uint16_t)pack_bfloat16(p[0], 0.0f)};
  else *reinterpret_cast<uint2 *>(to) = make_uint2(pack_bfloat16(p[0], p[1]), pack_bfloat16(p[2], p[3]));
}

static const int pg_update_threads = 256;

/* Grid-stride over N elements at a time, then those after the last whole N. */
template <class Optimiser, int N>
static __global__ void __launch_bounds__(pg_update_threads) pg_update_all(Optimiser o, pg_hyper h, int64_t n) {
  PG_SHARED(typename Optimiser::constants, shared, [1]);
  if (threadIdx.x == 0) shared[0] = Optimiser::constants_of(h);
  __syncthreads();
  typename Optimiser::constants c = shared[0];
  PG_GRID_STRIDE(i, n / N) o.template step<N>(c, i * N);
  int64_t last = n / N * N + (int64_t)blockIdx.x * pg_update_threads + threadIdx.x;
  if (last < n) o.template step<1>(c, last);
}

/* Launches a step of n elements; `vectors`: 16 bytes at a time. As many blocks as an H100 holds at once, so that each
 * computes the constants but once. */
template <class Optimiser>
static void pg_update(const Optimiser &o, const pg_view *hyper, const pg_view *square_sum, int64_t n, bool vectors,
                      void *stream) {
  const unsigned most_blocks = 132 * 8;
  pg_hyper h = {hyper->data, hyper->dtype == PG_FLOAT64, pg_data<float>(square_sum)};
  unsigned blocks = pg_blocks(n, pg_update_threads * (vectors ? PG_VECTOR : 1));
  auto kernel = vectors ? pg_update_all<Optimiser, PG_VECTOR> : pg_update_all<Optimiser, 1>;
  LAUNCH(kernel, blocks < most_blocks ? blocks : most_blocks, pg_update_threads, 0, stream, o, h, n);
}

#endif
#endif
