#include "cuda_loop.h"

#include "gather/check.h"
#include "gather/gather.h"

/* A launch does not wait for what it finds: an index out of bounds is no error here but gives NaN (gather.h). */

static __device__ __forceinline__ int64_t index_at(const void *data, int is_long, int64_t offset) {
  return is_long ? static_cast<const int64_t *>(data)[offset] : static_cast<const int32_t *>(data)[offset];
}

/* ---- gather ---- */

namespace {

/* Operands: out, contiguous, and the index; T is an element's bits. */
template <typename T>
struct picking {
  const T *out, *x;
  int64_t inner, k, j;
  T missing; /* what an index out of bounds gives */
  int is_long;

  /* Where the entry `found` lies in x that belongs to out's element `linear`, or -1. */
  __device__ __forceinline__ int64_t source(int64_t linear, int64_t found) const {
    int64_t row = quotient(linear, inner), o = quotient(row, j);
    return found >= 0 && found < k ? (o * k + found) * inner + (linear - row * inner) : -1;
  }
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    int64_t linear = reinterpret_cast<T *>(g.data[0]) + at[0] - out;
    T values[N];
    if (N > 1 && g.repeats[1]) { /* one index, a part of one row */
      int64_t from = source(linear, index_at(g.data[1], is_long, at[1]));
      for (int e = 0; e < N; e++) values[e] = missing;
      if (from >= 0) read_from<N>(values, x + from);
    } else {
      for (int e = 0; e < N; e++) {
        int64_t from = source(linear + e, index_at(g.data[1], is_long, at[1] + e));
        values[e] = from >= 0 ? x[from] : missing;
      }
    }
    write<N>(g, 0, at, values);
  }
};

}  // namespace

template <typename T>
static void pick(const pg_view *y, const pg_view *x, const picture &p, T missing, void *stream) {
  const pg_view *const views[2] = {y, p.index};
  pg_loop loop;
  pg_loop_make(&loop, 2, views);
  picking<T> body = {pg_data<T>(y), pg_data<T>(x), p.inner, p.k, p.j, missing, p.index->dtype == PG_INT64};
  enum { VECTOR = 16 / sizeof(T) };
  bool rows_in_vectors = p.inner % VECTOR == 0 && reinterpret_cast<uintptr_t>(body.x) % 16 == 0;
  if (rows_in_vectors || pg_loop_inner(&loop, 1) == 1) pg_each<2, VECTOR>(loop, body, stream);
  else pg_each<2, 1>(loop, body, stream);
}

pg_status PG_CUDA(gather)(const pg_call *call) {
  const gather_views v = gather_of(call);
  picture p = {};
  pg_status status = expect_gather(call, &p);
  if (status) return status;
  switch (v.y->dtype) {
  case PG_FLOAT32: pick<uint32_t>(v.y, v.x, p, 0x7fc00000u, call->stream); break;
  case PG_FLOAT64: pick<uint64_t>(v.y, v.x, p, 0x7ff8000000000000u, call->stream); break;
  case PG_BFLOAT16: pick<uint16_t>(v.y, v.x, p, 0x7fc0u, call->stream); break;
  case PG_INT32: pick<uint32_t>(v.y, v.x, p, 0, call->stream); break;
  case PG_INT64: pick<uint64_t>(v.y, v.x, p, 0, call->stream); break;
  default: pick<uint8_t>(v.y, v.x, p, 0, call->stream);
  }
  return pg_launched("gather");
}

/* ---- scatter_add: each element of out looks for its sources among all j, in order ---- */

struct scattering {
  real *out;
  const real *x, *source;
  const void *index;
  int is_long;
  int64_t outer, inner, k, j, step;
  pg_grid<1> before, after; /* the index's dimensions before and after dim */
};

/* Grid: a warp takes PG_WARP·N elements of a row of out; its lanes look at PG_WARP indices at a time, which are the
 * same for all elements of a row. */
static const int scatter_warps = 4;
template <int N>
static __global__ void __launch_bounds__(scatter_warps *PG_WARP) scatter_rows(scattering s) {
  int lane = threadIdx.x % PG_WARP;
  int64_t tiles = (s.inner + PG_WARP * N - 1) / (PG_WARP * N);
  int64_t unit = (int64_t)blockIdx.x * scatter_warps + threadIdx.x / PG_WARP, row = quotient(unit, tiles);
  if (row >= s.outer * s.k) return; /* a whole warp, and nobody waits for it */
  int64_t i = (unit - row * tiles) * PG_WARP * N + lane * N, o = quotient(row, s.k), k = row - o * s.k;
  bool mine = i < s.inner;
  int at[1];
  place(at, s.before, (unsigned)o);
  stat sum[N] = {}, v[N];
  if (s.x && mine) load_some<N>(sum, s.x + row * s.inner + i);
  bool outside = false;
  for (int64_t first = 0; first < s.j; first += PG_WARP) {
    int64_t found = 0;
    bool there = first + lane < s.j;
    if (there) found = index_at(s.index, s.is_long, at[0] + (first + lane) * s.step);
    outside = outside || (there && (found < 0 || found >= s.k));
    for (unsigned hits = __ballot_sync(PG_ALL_LANES, there && found == k); hits; hits &= hits - 1) {
      if (!mine) continue;
      load_some<N>(v, s.source + (o * s.j + first + __ffs((int)hits) - 1) * s.inner + i);
      for (int e = 0; e < N; e++) sum[e] += v[e];
    }
  }
  if (__any_sync(PG_ALL_LANES, outside))
    for (int e = 0; e < N; e++) sum[e] = __uint_as_float(0x7fc00000u);
  if (mine) store_some<N>(s.out + row * s.inner + i, sum);
}

/* An element a thread, each with indices of its own. */
static __global__ void __launch_bounds__(PG_EACH_THREADS) scatter_elements(scattering s) {
  PG_GRID_STRIDE(linear, s.outer * s.k * s.inner) {
    int64_t row = quotient(linear, s.inner), i = linear - row * s.inner, o = quotient(row, s.k), k = row - o * s.k;
    int before[1], after[1];
    place(before, s.before, (unsigned)o);
    place(after, s.after, (unsigned)i);
    stat sum = s.x ? load(s.x[linear]) : 0.0f;
    for (int64_t j = 0; j < s.j; j++) {
      int64_t found = index_at(s.index, s.is_long, (int64_t)before[0] + after[0] + j * s.step);
      if (found == k) sum += load(s.source[(o * s.j + j) * s.inner + i]);
      if (found < 0 || found >= s.k) sum = __uint_as_float(0x7fc00000u);
    }
    s.out[linear] = store(sum);
  }
}

/* A grid over dimensions [from, to) of a view. */
static pg_grid<1> dimensions(const pg_view *v, int from, int to) {
  pg_view part = *v;
  part.ndim = to - from;
  for (int d = from; d < to; d++) part.shape[d - from] = v->shape[d], part.stride[d - from] = v->stride[d];
  const pg_view *const views[1] = {&part};
  pg_loop loop;
  pg_loop_make(&loop, 1, views);
  return pg_grid_of<1>(loop);
}

int64_t PG_CUDA(scatter_add_scratch)(const pg_call *call) {
  picture p = {};
  return expect_scatter_add(call, &p) ? -1 : 0;
}

pg_status PG_CUDA(scatter_add)(const pg_call *call) {
  const scatter_add_views v = scatter_add_of(call);
  picture p = {};
  pg_status status = expect_scatter_add(call, &p);
  if (status) return status;
  scattering s = {pg_data<real>(v.y), pg_data<real>(v.x), pg_data<real>(v.source), p.index->data,
                  p.index->dtype == PG_INT64, p.outer, p.inner, p.k, p.j, p.step, {}, {}};
  int64_t total = p.outer * p.k * p.inner;
  if (total == 0) return PG_OK;
  s.before = dimensions(p.index, 0, p.dim);
  s.after = dimensions(p.index, p.dim + 1, p.index->ndim);
  if (p.rows) {
    bool vectors = pg_vectorisable(s.out, p.inner, p.inner) && pg_vectorisable(s.x, p.inner, p.inner) &&
                   pg_vectorisable(s.source, p.inner, p.inner);
    int64_t units = p.outer * p.k * pg_pieces(p.inner, PG_WARP * (vectors ? PG_VECTOR : 1));
    auto kernel = vectors ? scatter_rows<PG_VECTOR> : scatter_rows<1>;
    LAUNCH(kernel, pg_blocks(units, scatter_warps), scatter_warps * PG_WARP, 0, call->stream, s);
  } else {
    LAUNCH(scatter_elements, pg_stride_blocks(total, PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream, s);
  }
  return pg_launched("scatter_add");
}
