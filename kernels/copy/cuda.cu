#include "cuda_copy.h"

#include "copy/check.h"
#include "copy/copy.h"

pg_status PG_CUDA(copy)(const pg_call *call) {
  const copy_views v = copy_of(call);
  pg_status status = expect_alike("copy", v.y, v.x);
  if (status) return status;
  pg_copy_views(v.y, v.x, call->stream);
  return pg_launched("copy");
}

pg_status PG_CUDA(flip)(const pg_call *call) {
  const flip_views v = flip_of(call);
  pg_status status = expect_flip(call);
  if (status || pg_numel(v.x) == 0) return status;
  pg_view back = reversed(v.x, flip_ints_of(call).dim);
  pg_copy_views(v.y, &back, call->stream);
  return pg_launched("flip");
}

/* ---- concat: one launch, as long as no part is a transposition or too large ---- */

struct concat_parts {
  pg_grid<2> part[PG_MAX_VIEWS - 1];
};

/* Grid: (blocks, parts). */
template <int N, typename T>
static __global__ void __launch_bounds__(PG_EACH_THREADS) concat_kernel(concat_parts parts) {
  const pg_grid<2> &g = parts.part[blockIdx.y];
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < g.total / N; i += gridDim.x * blockDim.x) {
    int at[2];
    place(at, g, i * N);
    pg_element_copy<T>{}.template operator()<N>(g, at);
  }
}

template <typename T>
static void concat_at_once(const pg_loop *loops, int count, void *stream) {
  enum { VECTOR = 16 / sizeof(T) };
  concat_parts parts = {};
  bool vectors = true;
  int64_t longest = 0;
  for (int k = 0; k < count; k++) {
    parts.part[k] = pg_grid_of<2>(loops[k]);
    vectors = vectors && pg_loop_vectors(loops[k], VECTOR);
    longest = loops[k].total > longest ? loops[k].total : longest;
  }
  auto kernel = vectors ? concat_kernel<VECTOR, T> : concat_kernel<1, T>;
  unsigned blocks = pg_stride_blocks(vectors ? longest / VECTOR : longest, PG_EACH_THREADS);
  LAUNCH(kernel, dim3(blocks, (unsigned)count), PG_EACH_THREADS, 0, stream, parts);
}

pg_status PG_CUDA(concat)(const pg_call *call) {
  const concat_views v = concat_of(call);
  pg_status status = expect_concat(call);
  if (status) return status;
  pg_loop loops[PG_MAX_VIEWS];
  int64_t dim = concat_ints_of(call).dim, start = 0;
  int count = 0;
  bool together = true;
  for (int k = 1; k < call->n; k++) {
    const pg_view *x = pg_view_at(call, k);
    if (!pg_present(x)) continue;
    pg_view part = narrowed(v.y, dim, start, x->shape[dim]);
    start += x->shape[dim];
    if (pg_numel(&part) == 0) continue;
    const pg_view *const views[2] = {&part, x};
    pg_loop_make(&loops[count], 2, views);
    together = together && pg_loop_fits(loops[count]) && pg_transposed_dimension(loops[count]) < 0;
    count++;
  }
  if (!together) {
    for (int k = 0; k < count; k++) pg_copy_loop(loops[k], call->stream);
  } else if (count > 0) {
    switch (loops[0].bytes[0]) {
    case 1: concat_at_once<uint8_t>(loops, count, call->stream); break;
    case 2: concat_at_once<uint16_t>(loops, count, call->stream); break;
    case 4: concat_at_once<uint32_t>(loops, count, call->stream); break;
    default: concat_at_once<uint64_t>(loops, count, call->stream);
    }
  }
  return pg_launched("concat");
}

/* ---- narrow_backward ---- */

namespace {

/* Operands: dx, contiguous, and dy as if it had dx's shape; of it only elements [first, last) of every slab are there. */
template <typename T>
struct widening {
  const T *dx;
  int64_t slab, first, last;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    int64_t linear = reinterpret_cast<T *>(g.data[0]) + at[0] - dx;
    int64_t place = linear - quotient(linear, slab) * slab;
    T x[N] = {};
    if (place >= first && place < last) read<N>(x, g, 1, at);
    write<N>(g, 0, at, x);
  }
};

}  // namespace

template <typename T>
static void widen(const pg_view *dx, const pg_view *dy, int64_t dim, int64_t start, void *stream) {
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < dx->ndim; d++) inner *= dx->shape[d];
  int64_t first = start * inner, last = (start + dy->shape[dim]) * inner;
  pg_view wide = narrowed(dy, dim, -start, dx->shape[dim]);
  const pg_view *const views[2] = {dx, &wide};
  pg_loop loop;
  pg_loop_make(&loop, 2, views);
  enum { VECTOR = 16 / sizeof(T) };
  widening<T> body = {static_cast<const T *>(dx->data), dx->shape[dim] * inner, first, last};
  if (first % VECTOR == 0 && last % VECTOR == 0 && body.slab % VECTOR == 0) pg_each<2, VECTOR>(loop, body, stream);
  else pg_each<2, 1>(loop, body, stream);
}

pg_status PG_CUDA(narrow_backward)(const pg_call *call) {
  const narrow_backward_views v = narrow_backward_of(call);
  const narrow_backward_ints ints = narrow_backward_ints_of(call);
  pg_status status = expect_narrow_backward(call);
  if (status || pg_numel(v.dx) == 0) return status;
  switch (pg_dtype_bytes(v.dx->dtype)) {
  case 1: widen<uint8_t>(v.dx, v.dy, ints.dim, ints.start, call->stream); break;
  case 2: widen<uint16_t>(v.dx, v.dy, ints.dim, ints.start, call->stream); break;
  case 4: widen<uint32_t>(v.dx, v.dy, ints.dim, ints.start, call->stream); break;
  default: widen<uint64_t>(v.dx, v.dy, ints.dim, ints.start, call->stream);
  }
  return pg_launched("narrow_backward");
}

/* ---- dtypes ---- */

static __device__ __forceinline__ bfloat16 to_bfloat16(float x) { return bfloat16{(uint16_t)pack_bfloat16(x, 0.0f)}; }

/* Towards zero, within [low, high]; NaN is 0. */
static __device__ __forceinline__ int32_t truncated(double x, double low, double high) {
  return x == x ? (int32_t)(x < low ? low : x > high ? high : x) : 0;
}
static __device__ __forceinline__ int64_t truncated_long(double x) { /* 2^63 has no place in an int64 */
  if (x >= 0x1p63) return INT64_MAX;
  return x >= -0x1p63 ? (int64_t)x : x == x ? INT64_MIN : 0;
}

static __device__ __forceinline__ void store_real(void *to, int dtype, double x) {
  switch (dtype) {
  case PG_FLOAT32: *static_cast<float *>(to) = (float)x; break;
  case PG_FLOAT64: *static_cast<double *>(to) = x; break;
  case PG_BFLOAT16: *static_cast<bfloat16 *>(to) = to_bfloat16((float)x); break;
  case PG_INT32: *static_cast<int32_t *>(to) = truncated(x, INT32_MIN, INT32_MAX); break;
  case PG_INT64: *static_cast<int64_t *>(to) = truncated_long(x); break;
  default: *static_cast<uint8_t *>(to) = (uint8_t)truncated(x, 0, 255);
  }
}

static __global__ void __launch_bounds__(PG_EACH_THREADS)
    arange_kernel(char *y, int dtype, int64_t bytes, int64_t n, double first, double step) {
  PG_GRID_STRIDE(k, n) store_real(y + k * bytes, dtype, first + (double)k * step);
}

/* Writes whole vectors of 16 bytes, then the elements that are left; all of them one by one where y is not aligned. */
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    fill_kernel(char *y, int dtype, int64_t bytes, int64_t n, double value) {
  uint4 pattern;
  for (int k = 0; k < 16; k += (int)bytes) store_real(reinterpret_cast<char *>(&pattern) + k, dtype, value);
  int64_t vectors = reinterpret_cast<uintptr_t>(y) % 16 == 0 ? n * bytes / 16 : 0, done = vectors * 16 / bytes;
  PG_GRID_STRIDE(k, vectors) reinterpret_cast<uint4 *>(y)[k] = pattern;
  PG_GRID_STRIDE(k, n - done) store_real(y + (done + k) * bytes, dtype, value);
}

pg_status PG_CUDA(fill)(const pg_call *call) {
  const fill_views v = fill_of(call);
  int64_t n = pg_numel(v.y), bytes = pg_dtype_bytes(v.y->dtype);
  LAUNCH(fill_kernel, pg_stride_blocks(pg_pieces(n * bytes, 16), PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream,
         static_cast<char *>(v.y->data), v.y->dtype, bytes, n, fill_floats_of(call).value);
  return pg_launched("fill");
}

pg_status PG_CUDA(arange)(const pg_call *call) {
  const arange_views v = arange_of(call);
  const arange_floats floats = arange_floats_of(call);
  pg_status status = expect_arange(call);
  if (status) return status;
  LAUNCH(arange_kernel, pg_stride_blocks(v.y->shape[0], PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream,
         static_cast<char *>(v.y->data), v.y->dtype, pg_dtype_bytes(v.y->dtype), v.y->shape[0],
         floats.start, floats.step);
  return pg_launched("arange");
}

/* ---- cast: float32 <-> bfloat16 by vectors; the rest through float64 or int64, one by one ---- */

#if PG_REAL == 0
static __device__ __forceinline__ int64_t limited(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

namespace {

template <typename To, typename From>
struct rounding {
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    From x[N];
    To y[N];
    read<N>(x, g, 1, at);
    for (int k = 0; k < N; k++) put(y[k], load(x[k]));
    write<N>(g, 0, at, y);
  }
  static __device__ __forceinline__ void put(float &to, float x) { to = x; }
  static __device__ __forceinline__ void put(bfloat16 &to, float x) { to = to_bfloat16(x); }
};

struct conversion {
  int to, from, to_bytes, from_bytes;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    static_assert(N == 1, "one by one");
    void *y = g.data[0] + (int64_t)at[0] * to_bytes;
    const void *x = g.data[1] + (int64_t)at[1] * from_bytes;
    switch (from) {
    case PG_FLOAT32: store_real(y, to, (double)*static_cast<const float *>(x)); break;
    case PG_FLOAT64: store_real(y, to, *static_cast<const double *>(x)); break;
    case PG_BFLOAT16: store_real(y, to, (double)load(*static_cast<const bfloat16 *>(x))); break;
    case PG_INT32: store_integer(y, *static_cast<const int32_t *>(x)); break;
    case PG_INT64: store_integer(y, *static_cast<const int64_t *>(x)); break;
    default: store_integer(y, *static_cast<const uint8_t *>(x));
    }
  }
  __device__ __forceinline__ void store_integer(void *y, int64_t x) const {
    switch (to) {
    case PG_FLOAT32: *static_cast<float *>(y) = (float)x; break;
    case PG_FLOAT64: *static_cast<double *>(y) = (double)x; break;
    case PG_BFLOAT16: *static_cast<bfloat16 *>(y) = to_bfloat16((float)x); break;
    case PG_INT32: *static_cast<int32_t *>(y) = (int32_t)limited(x, INT32_MIN, INT32_MAX); break;
    case PG_INT64: *static_cast<int64_t *>(y) = x; break;
    default: *static_cast<uint8_t *>(y) = (uint8_t)limited(x, 0, 255);
    }
  }
};

}  // namespace

static void convert(const pg_loop &loop, int to, int from, void *stream) {
  if (to == PG_BFLOAT16 && from == PG_FLOAT32) {
    pg_each<2, 8>(loop, rounding<bfloat16, float>{}, stream);
  } else if (to == PG_FLOAT32 && from == PG_BFLOAT16) {
    pg_each<2, 8>(loop, rounding<float, bfloat16>{}, stream);
  } else {
    pg_each<2, 1>(loop, conversion{to, from, (int)loop.bytes[0], (int)loop.bytes[1]}, stream);
  }
}
#else
static void convert(const pg_loop &, int, int, void *) {} /* expect_cast() has refused it */
#endif

pg_status PG_CUDA(cast)(const pg_call *call) {
  const cast_views v = cast_of(call);
  pg_loop loop;
  pg_status status = expect_cast(call, &loop);
  if (status) return status;
  int to = v.y->dtype, from = v.x->dtype;
  if (to == from) pg_copy_loop(loop, call->stream);
  else convert(loop, to, from, call->stream);
  return pg_launched("cast");
}
