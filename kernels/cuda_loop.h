/* Loops (loop.h) on CUDA: one launch, memory read and written once, 16 bytes at a time where all operands allow that.
 *
 *   namespace {  // the two instances of a file live in one library
 *   struct doubled {
 *     template <int N, typename G>
 *     __device__ __forceinline__ void operator()(const G &g, const int *at) const {
 *       real x[N];  // side by side in operand 0
 *       read<N>(x, g, 1, at);
 *       for (int k = 0; k < N; k++) x[k] = store(2 * load(x[k]));
 *       write<N>(g, 0, at, x);
 *     }
 *   };
 *   }  // namespace
 *   pg_each<2, PG_VECTOR>(loop, doubled{}, call->stream);
 *
 * Index arithmetic is in 32 bits: the host cuts larger loops in pieces. */
#ifndef PERIGEE_KERNELS_CUDA_LOOP_H
#define PERIGEE_KERNELS_CUDA_LOOP_H

#include "cuda.h"
#include "loop.h"

/* Division by a number that is known at the launch, for dividends below 2^31 (Granlund and Montgomery 1994). */
struct pg_divisor {
  unsigned value, factor, shift;
};
static inline pg_divisor pg_divisor_of(int64_t value) {
  unsigned shift = 0;
  while (((int64_t)1 << shift) < value) shift++;
  uint64_t excess = ((uint64_t)1 << shift) - (uint64_t)value;
  return {(unsigned)value, (unsigned)((excess << 32) / (uint64_t)value + 1), shift};
}
static __device__ __forceinline__ unsigned divide(unsigned x, const pg_divisor &by) {
  return (__umulhi(x, by.factor) + x) >> by.shift;
}

/* a / b of numbers that are not negative; 32 bits are enough most of the time, and several times as fast. */
static __device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  return (a | b) >> 31 ? a / b : (int64_t)((unsigned)a / (unsigned)b);
}

/* A loop over K operands, as a kernel sees it. */
template <int K>
struct pg_grid {
  int ndim;
  unsigned total; /* elements */
  pg_divisor size[PG_MAX_DIMS];
  int stride[K][PG_MAX_DIMS]; /* in elements */
  bool repeats[K];            /* the innermost stride is 0 */
  char *data[K];
};

/* Where element `linear` lies in each operand. */
template <int K>
static __device__ __forceinline__ void place(int at[K], const pg_grid<K> &g, unsigned linear) {
  for (int k = 0; k < K; k++) at[k] = 0;
  for (int d = g.ndim - 1; d > 0; d--) {
    unsigned rest = divide(linear, g.size[d]);
    int index = (int)(linear - rest * g.size[d].value);
    for (int k = 0; k < K; k++) at[k] += index * g.stride[k][d];
    linear = rest;
  }
  for (int k = 0; k < K; k++) at[k] += (int)linear * g.stride[k][0];
}

/* ---- N elements of any type, in as few accesses as 16 bytes each allow ---- */

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) pg_pack {
  T element[N];
};

template <int N, typename T>
static __device__ __forceinline__ void read_from(T out[N], const T *from) {
  pg_pack<T, N> pack = *reinterpret_cast<const pg_pack<T, N> *>(from);
  for (int k = 0; k < N; k++) out[k] = pack.element[k];
}
template <int N, typename T>
static __device__ __forceinline__ void write_to(T *to, const T in[N]) {
  pg_pack<T, N> pack;
  for (int k = 0; k < N; k++) pack.element[k] = in[k];
  *reinterpret_cast<pg_pack<T, N> *>(to) = pack;
}

/* N elements of operand k. */
template <int N, typename T, typename G>
static __device__ __forceinline__ void read(T out[N], const G &g, int k, const int *at) {
  const T *from = reinterpret_cast<const T *>(g.data[k]) + at[k];
  if (N > 1 && g.repeats[k]) {
    T x = *from;
    for (int j = 0; j < N; j++) out[j] = x;
  } else {
    read_from<N>(out, from);
  }
}
template <int N, typename T, typename G>
static __device__ __forceinline__ void write(const G &g, int k, const int *at, const T in[N]) {
  write_to<N>(reinterpret_cast<T *>(g.data[k]) + at[k], in);
}

/* ---- launches ---- */

enum { PG_EACH_THREADS = 256 };

/* The most that one launch takes, in elements and in the reach of an operand's offsets; tests set less. */
#ifndef PG_GRID_MOST
#define PG_GRID_MOST INT32_MAX
#endif

template <int N, int K, typename F>
static __global__ void __launch_bounds__(PG_EACH_THREADS) pg_each_kernel(pg_grid<K> g, F body) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < g.total / N; i += gridDim.x * blockDim.x) {
    int at[K];
    place(at, g, i * N);
    body.template operator()<N>(g, at);
  }
}

static inline bool pg_loop_fits(const pg_loop &loop) {
  if (loop.total > PG_GRID_MOST) return false;
  for (int k = 0; k < loop.operands; k++) {
    int64_t reach = 0;
    for (int d = 0; d < loop.ndim; d++)
      reach += (loop.shape[d] - 1) * (loop.stride[k][d] < 0 ? -loop.stride[k][d] : loop.stride[k][d]);
    if (reach > INT32_MAX) return false;
  }
  return true;
}

/* Cuts the loop in two along its longest dimension: leaves the first part and returns the second one. */
static inline pg_loop pg_loop_cut(pg_loop &loop) {
  int longest = 0;
  for (int d = 1; d < loop.ndim; d++)
    if (loop.shape[d] > loop.shape[longest]) longest = d;
  int64_t half = loop.shape[longest] / 2, others = loop.total / loop.shape[longest];
  if (half > 64) half -= half % 64; /* vectors stay whole */
  pg_loop rest = loop;
  rest.shape[longest] -= half;
  for (int k = 0; k < loop.operands; k++) rest.data[k] += half * loop.stride[k][longest] * loop.bytes[k];
  rest.total = rest.shape[longest] * others;
  loop.shape[longest] = half;
  loop.total = half * others;
  return rest;
}

/* Whether N elements at a time lie side by side, or repeat, in every operand, at addresses that suit pg_pack. */
static inline bool pg_loop_vectors(const pg_loop &loop, int n) {
  int last = loop.ndim - 1;
  if (loop.shape[last] % n != 0 || loop.stride[0][last] != 1) return false;
  for (int k = 0; k < loop.operands; k++) {
    int64_t inner = loop.stride[k][last], alignment = loop.bytes[k] * n < 16 ? loop.bytes[k] * n : 16;
    if (inner == 0) continue;
    if (inner != 1 || reinterpret_cast<uintptr_t>(loop.data[k]) % (uintptr_t)alignment != 0) return false;
    for (int d = 0; d < last; d++)
      if (loop.stride[k][d] * loop.bytes[k] % alignment != 0) return false;
  }
  return true;
}

template <int K>
static pg_grid<K> pg_grid_of(const pg_loop &loop) {
  pg_grid<K> g = {};
  g.ndim = loop.ndim;
  g.total = (unsigned)loop.total;
  for (int d = 0; d < loop.ndim; d++) g.size[d] = pg_divisor_of(loop.shape[d]);
  for (int k = 0; k < K; k++) {
    for (int d = 0; d < loop.ndim; d++) g.stride[k][d] = (int)loop.stride[k][d];
    g.repeats[k] = loop.stride[k][loop.ndim - 1] == 0;
    g.data[k] = loop.data[k];
  }
  return g;
}

/* Runs `body` for all elements of a loop of K operands: N at a time, or one. */
template <int K, int N, typename F>
static void pg_each(pg_loop loop, F body, void *stream) {
  if (loop.total == 0) return;
  if (!pg_loop_fits(loop)) {
    pg_loop rest = pg_loop_cut(loop);
    pg_each<K, N>(loop, body, stream);
    pg_each<K, N>(rest, body, stream);
    return;
  }
  bool vectors = pg_loop_vectors(loop, N);
  auto kernel = vectors ? pg_each_kernel<N, K, F> : pg_each_kernel<1, K, F>;
  unsigned blocks = pg_stride_blocks(vectors ? loop.total / N : loop.total, PG_EACH_THREADS);
  LAUNCH(kernel, blocks, PG_EACH_THREADS, 0, stream, pg_grid_of<K>(loop), body);
}

/* A loop over views that all have v[0]'s number of elements and are contiguous. */
static inline pg_loop pg_loop_flat(int operands, const pg_view *const *views) {
  pg_loop loop = {};
  loop.operands = operands;
  loop.ndim = 1;
  loop.shape[0] = loop.total = pg_numel(views[0]);
  for (int k = 0; k < operands; k++) {
    loop.stride[k][0] = 1;
    loop.bytes[k] = pg_dtype_bytes(views[k]->dtype);
    loop.data[k] = static_cast<char *>(views[k]->data);
  }
  return loop;
}

#endif
