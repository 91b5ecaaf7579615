#include "cuda.h"
#include "reduce/reduce.h"
#include "reduce/check.h"

static const int threads = 256;

/* ---- which elements of x belong to an element of y ---- */

/* Dimensions of one kind, outermost first. */
struct dimensions {
  int n;
  int64_t shape[PG_MAX_DIMS / 2], stride[PG_MAX_DIMS / 2];
};

/* x with neighbouring dimensions of one kind merged, those of size 1 dropped, and the last one, of `length` elements
 * in one piece, apart: where it is reduced, an element of y is made of `rows` times it; where it stays, of `rows`
 * elements. */
struct layout {
  dimensions kept, reduced; /* all but the last */
  bool last_reduced;
  int64_t length, rows, outer; /* outer: combinations of the kept dimensions but the last */
};

static layout layout_of(const pg_view *x, int64_t mask) {
  int64_t shape[PG_MAX_DIMS + 1];
  bool reduced[PG_MAX_DIMS + 1];
  int n = 0;
  layout l = {};
  l.rows = l.outer = l.length = 1;
  l.last_reduced = true;
  for (int d = 0; d < x->ndim; d++) {
    bool kind = (mask >> d) & 1;
    if (x->shape[d] == 1) continue;
    if (n && reduced[n - 1] == kind) shape[n - 1] *= x->shape[d];
    else shape[n] = x->shape[d], reduced[n++] = kind;
  }
  if (!n) return l; /* one element */
  l.length = shape[n - 1], l.last_reduced = reduced[n - 1];
  int64_t strides[PG_MAX_DIMS], stride = l.length;
  for (int d = n - 2; d >= 0; d--) {
    strides[d] = stride;
    stride *= shape[d];
  }
  for (int d = 0; d < n - 1; d++) {
    dimensions *to = reduced[d] ? &l.reduced : &l.kept;
    *(reduced[d] ? &l.rows : &l.outer) *= shape[d];
    to->shape[to->n] = shape[d];
    to->stride[to->n++] = strides[d];
  }
  return l;
}

static int64_t kept_of(const layout &l) { return l.outer * (l.last_reduced ? 1 : l.length); }
static int64_t removed_of(const layout &l) { return l.rows * (l.last_reduced ? l.length : 1); }

static __device__ __forceinline__ int64_t offset_of(const dimensions &d, int64_t index) {
  int64_t offset = 0;
  for (int k = d.n - 1; k > 0; k--) {
    offset += index % d.shape[k] * d.stride[k];
    index /= d.shape[k];
  }
  return d.n ? offset + index * d.stride[0] : 0;
}

/* ---- functions: a sum or a largest element; sign −1 makes that the smallest ---- */

struct function {
  stat sign, divisor;
};

template <bool EXTREME>
static __device__ __forceinline__ stat identity() {
  return EXTREME ? -INFINITY : 0.0f;
}
template <bool EXTREME>
static __device__ __forceinline__ stat combined(stat a, stat b) {
  if constexpr (!EXTREME) return a + b;
  else return b > a || b != b ? b : a; /* NaN if one of them is */
}

/* A partial result, or one of y's elements. */
template <class T>
static __device__ __forceinline__ void put(T *to, stat x) {
  if constexpr (sizeof(T) == sizeof(stat)) *to = x;
  else *to = store(x);
}

template <int N, class T>
static __device__ __forceinline__ void load_any(stat out[N], const T *from) {
  if constexpr (N == 1) out[0] = load(*from);
  else load_vector(out, from);
}

/* A power of two, at least `n` where `most` allows that. */
static int power_of_two(int64_t n, int most) {
  int p = 1;
  while (p < n && p < most) p *= 2;
  return p;
}

/* ---- the last dimension is reduced: rows ---- */

static const int64_t piece = 8192, small_piece = 1024;

/* How the `rows`·`length` elements of one output are cut into pieces: parts of a long row, or some short rows. A piece
 * is the work of `team` threads, `across` of them side by side in a row. */
struct row_cut {
  int64_t row_pieces, rows_a_piece, pieces, units;
  int team, across;
};

static row_cut cut_rows(const layout &l, int vector) {
  row_cut c = {1, 1, 0, 0, 0, 0};
  if (l.length > piece) c.row_pieces = pg_pieces(l.length, piece);
  else if (l.length) c.rows_a_piece = piece / l.length;
  c.pieces = pg_pieces(l.rows, c.rows_a_piece) * c.row_pieces;
  if (c.pieces < 1) c.pieces = 1; /* of no elements */
  c.units = l.outer * c.pieces;
  c.team = removed_of(l) <= small_piece ? PG_WARP : threads;
  c.across = power_of_two(l.length / vector, c.team);
  return c;
}

template <bool EXTREME>
static __device__ __forceinline__ stat combined_in_warp(stat x) {
  for (int offset = PG_WARP / 2; offset; offset /= 2)
    x = combined<EXTREME>(x, __shfl_xor_sync(PG_ALL_LANES, x, offset));
  return x;
}

/* Grid: threads / team pieces a block. out is [outer, pieces]. */
template <bool EXTREME, int N, class In, class Out>
static __global__ void __launch_bounds__(threads) reduce_rows(layout l, row_cut c, Out *out, const In *x, function f) {
  PG_SHARED(stat, parts, [threads / PG_WARP]);
  int place = threadIdx.x % c.team;
  int64_t unit = (int64_t)blockIdx.x * (threads / c.team) + threadIdx.x / c.team, number = unit % c.pieces;
  stat total = identity<EXTREME>(), v[N];
  if (unit < c.units) {
    int64_t first = number / c.row_pieces * c.rows_a_piece, last = min(first + c.rows_a_piece, l.rows);
    int64_t from = number % c.row_pieces * piece, to = c.row_pieces > 1 ? min(from + piece, l.length) : l.length;
    const In *start = x + offset_of(l.kept, unit / c.pieces);
    for (int64_t row = first + place / c.across; row < last; row += c.team / c.across) {
      const In *elements = start + offset_of(l.reduced, row);
#pragma unroll 4
      for (int64_t j = from + place % c.across * N; j < to; j += c.across * N) {
        load_any<N>(v, elements + j);
        for (int k = 0; k < N; k++) total = combined<EXTREME>(total, f.sign * v[k]);
      }
    }
  }
  total = combined_in_warp<EXTREME>(total);
  if (c.team == threads) {
    if (threadIdx.x % PG_WARP == 0) parts[threadIdx.x / PG_WARP] = total;
    __syncthreads();
    total = parts[0];
    for (int w = 1; w < threads / PG_WARP; w++) total = combined<EXTREME>(total, parts[w]);
  }
  if (place == 0 && unit < c.units) put(out + unit, f.sign * total / f.divisor);
}

template <bool EXTREME, int N, class In, class Out>
static void launch_rows(const layout &l, const row_cut &c, Out *out, const In *x, function f, void *stream) {
  LAUNCH((reduce_rows<EXTREME, N, In, Out>), pg_blocks(c.units, threads / c.team), threads, 0, stream, l, c, out, x, f);
}

template <bool EXTREME, int N>
static void reduce_by_rows(const layout &l, function f, const pg_call *call) {
  const reduce_views v = reduce_of(call);
  row_cut c = cut_rows(l, N);
  real *y = pg_data<real>(v.y);
  const real *x = pg_data<real>(v.x);
  if (c.pieces == 1) return launch_rows<EXTREME, N>(l, c, y, x, f, call->stream);
  stat *partial = static_cast<stat *>(call->scratch);
  launch_rows<EXTREME, N>(l, c, partial, x, {f.sign, 1}, call->stream);
  layout second = {}; /* [outer, pieces], a team an output */
  second.kept = {1, {l.outer}, {c.pieces}};
  second.last_reduced = true, second.length = c.pieces, second.rows = 1, second.outer = l.outer;
  row_cut whole = cut_rows(second, 1);
  whole.row_pieces = whole.pieces = 1, whole.units = l.outer;
  launch_rows<EXTREME, 1>(second, whole, y, partial, f, call->stream);
}

/* ---- the last dimension stays: columns ---- */

static const int rows_a_thread = 16;

/* A block takes `across`·N columns of a chunk of rows; its threads stand `across` in a row and `deep` rows. */
struct column_cut {
  int across, deep;
  int64_t tiles, chunks, rows_a_chunk;
};

static column_cut cut_columns(const layout &l, int vector) {
  column_cut c = {power_of_two(l.length / vector, PG_WARP), 0, 0, 0, 0};
  c.deep = threads / c.across;
  c.tiles = pg_pieces(l.length, (int64_t)c.across * vector);
  c.rows_a_chunk = (int64_t)c.deep * rows_a_thread;
  c.chunks = pg_pieces(l.rows, c.rows_a_chunk);
  return c;
}

/* Grid: outer · chunks · tiles. out is [outer, chunks, length]. */
template <bool EXTREME, int N, class In, class Out>
static __global__ void __launch_bounds__(threads)
    reduce_columns(layout l, column_cut c, Out *out, const In *x, function f) {
  PG_SHARED(stat, parts, [threads * N]);
  int depth = threadIdx.x / c.across;
  int64_t tile = blockIdx.x % c.tiles, chunk = blockIdx.x / c.tiles % c.chunks, k = blockIdx.x / c.tiles / c.chunks;
  int64_t column = (tile * c.across + threadIdx.x % c.across) * N;
  int64_t first = chunk * c.rows_a_chunk, last = min(first + c.rows_a_chunk, l.rows);
  stat total[N], v[N];
  for (int e = 0; e < N; e++) total[e] = identity<EXTREME>();
  if (column < l.length) {
    const In *start = x + offset_of(l.kept, k) + column;
#pragma unroll 4
    for (int64_t row = first + depth; row < last; row += c.deep) {
      load_any<N>(v, start + offset_of(l.reduced, row));
      for (int e = 0; e < N; e++) total[e] = combined<EXTREME>(total[e], f.sign * v[e]);
    }
  }
  for (int half = c.deep / 2; half; half /= 2) { /* the lower half of the rows takes the upper half's */
    for (int e = 0; e < N; e++) parts[e * threads + threadIdx.x] = total[e];
    __syncthreads();
    if (depth < half)
      for (int e = 0; e < N; e++)
        total[e] = combined<EXTREME>(total[e], parts[e * threads + threadIdx.x + half * c.across]);
    __syncthreads();
  }
  if (depth != 0 || column >= l.length) return;
  Out *to = out + (k * c.chunks + chunk) * l.length + column;
  for (int e = 0; e < N; e++) put(to + e, f.sign * total[e] / f.divisor);
}

template <bool EXTREME, int N, class In, class Out>
static void launch_columns(const layout &l, const column_cut &c, Out *out, const In *x, function f, void *stream) {
  unsigned blocks = (unsigned)(l.outer * c.chunks * c.tiles);
  LAUNCH((reduce_columns<EXTREME, N, In, Out>), blocks, threads, 0, stream, l, c, out, x, f);
}

template <bool EXTREME, int N>
static void reduce_by_columns(const layout &l, function f, const pg_call *call) {
  const reduce_views v = reduce_of(call);
  column_cut c = cut_columns(l, N);
  real *y = pg_data<real>(v.y);
  const real *x = pg_data<real>(v.x);
  if (c.chunks == 1) return launch_columns<EXTREME, N>(l, c, y, x, f, call->stream);
  stat *partial = static_cast<stat *>(call->scratch);
  launch_columns<EXTREME, N>(l, c, partial, x, {f.sign, 1}, call->stream);
  layout second = {}; /* [outer, chunks, length], all chunks at once */
  second.kept = {1, {l.outer}, {c.chunks * l.length}};
  second.reduced = {1, {c.chunks}, {l.length}};
  second.length = l.length, second.rows = c.chunks, second.outer = l.outer;
  column_cut whole = cut_columns(second, 1);
  whole.rows_a_chunk = c.chunks, whole.chunks = 1;
  launch_columns<EXTREME, 1>(second, whole, y, partial, f, call->stream);
}

template <bool EXTREME>
static void reduce_floating(const layout &l, function f, const pg_call *call) {
  bool vectors = pg_vectorisable(reduce_of(call).x->data, l.length, l.length);
  if (l.last_reduced) vectors ? reduce_by_rows<EXTREME, PG_VECTOR>(l, f, call) : reduce_by_rows<EXTREME, 1>(l, f, call);
  else vectors ? reduce_by_columns<EXTREME, PG_VECTOR>(l, f, call) : reduce_by_columns<EXTREME, 1>(l, f, call);
}

/* ---- integers ---- */

#if PG_REAL == 0
struct integers {
  void *data;
  int dtype;
};

static __device__ __forceinline__ int64_t integer_at(const integers &v, int64_t place) {
  if (v.dtype == PG_INT32) return static_cast<const int32_t *>(v.data)[place];
  if (v.dtype == PG_INT64) return static_cast<const int64_t *>(v.data)[place];
  return static_cast<const uint8_t *>(v.data)[place];
}
static __device__ __forceinline__ void integer_put(const integers &v, int64_t place, int64_t value) {
  if (v.dtype == PG_INT32) static_cast<int32_t *>(v.data)[place] = (int32_t)value;
  else if (v.dtype == PG_INT64) static_cast<int64_t *>(v.data)[place] = value;
  else static_cast<uint8_t *>(v.data)[place] = (uint8_t)value;
}

static __device__ __forceinline__ int64_t combined_integers(int64_t which, int64_t a, int64_t b) {
  if (which == PG_REDUCE_sum) return (int64_t)((uint64_t)a + (uint64_t)b);
  return which == PG_REDUCE_max ? (b > a ? b : a) : (b < a ? b : a);
}

/* Grid: a block an element of y. */
static __global__ void __launch_bounds__(threads)
    reduce_whole_numbers(layout l, int64_t which, int64_t start, integers y, integers x) {
  PG_SHARED(int64_t, parts, [threads]);
  int64_t row_length = l.last_reduced ? l.length : 1, width = l.last_reduced ? 1 : l.length, total = start;
  int64_t offset = offset_of(l.kept, blockIdx.x / width) + blockIdx.x % width;
  for (int64_t r = threadIdx.x; r < l.rows * row_length; r += threads)
    total = combined_integers(
        which, total, integer_at(x, offset + offset_of(l.reduced, r / row_length) + r % row_length));
  parts[threadIdx.x] = total;
  __syncthreads();
  for (int half = threads / 2; half; half /= 2) {
    if ((int)threadIdx.x < half)
      parts[threadIdx.x] = combined_integers(which, parts[threadIdx.x], parts[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x == 0) integer_put(y, blockIdx.x, parts[0]);
}

static void reduce_integers(int64_t which, const layout &l, const pg_call *call) {
  const reduce_views v = reduce_of(call);
  int64_t start = which == PG_REDUCE_sum ? 0 : which == PG_REDUCE_max ? INT64_MIN : INT64_MAX;
  LAUNCH(reduce_whole_numbers, (unsigned)kept_of(l), threads, 0, call->stream, l, which, start,
         integers{v.y->data, v.y->dtype}, integers{v.x->data, v.x->dtype});
}
#endif

/* ---- the kernels ---- */

/* Enough for vectors and for elements one by one: the address is not known yet. */
int64_t PG_CUDA(reduce_scratch)(const pg_call *call) {
  const reduce_views v = reduce_of(call);
  layout l = layout_of(v.x, reduce_ints_of(call).mask);
  if (v.x->dtype != PG_REAL || pg_numel(v.x) == 0) return 0;
  int64_t pieces = l.last_reduced ? cut_rows(l, 1).pieces
                                  : max(cut_columns(l, 1).chunks, cut_columns(l, PG_VECTOR).chunks);
  return pieces > 1 ? kept_of(l) * pieces * (int64_t)sizeof(stat) : 0;
}

pg_status PG_CUDA(reduce)(const pg_call *call) {
  const reduce_views v = reduce_of(call);
  const reduce_ints ints = reduce_ints_of(call);
  int64_t which = ints.operation;
  layout l = layout_of(v.x, ints.mask);
  pg_status status = expect_reduce(call, kept_of(l), removed_of(l));
  if (status) return status;
#if PG_REAL == 0
  if (v.x->dtype != PG_REAL) {
    reduce_integers(which, l, call);
    return pg_launched("reduce");
  }
#endif
  function f = {which == PG_REDUCE_min ? -1.0f : 1.0f, which == PG_REDUCE_mean ? (stat)removed_of(l) : 1.0f};
  if (kept_of(l) == 0) return PG_OK;
  if (removed_of(l) == 0) { /* every element of y is the function of nothing */
    layout empty = {};
    empty.last_reduced = true, empty.outer = kept_of(l);
    l = empty;
  }
  if (which == PG_REDUCE_sum || which == PG_REDUCE_mean) reduce_floating<false>(l, f, call);
  else reduce_floating<true>(l, f, call);
  return pg_launched("reduce");
}

/* ---- argmax ---- */

struct best {
  stat value;
  int64_t place;
};

/* NaN above all, the first of equals. */
static __device__ __forceinline__ best better(best a, best b) {
  bool a_nan = a.value != a.value, b_nan = b.value != b.value, equal = a_nan ? b_nan : a.value == b.value;
  if (equal) return b.place < a.place ? b : a;
  return b_nan || b.value > a.value ? b : a;
}

/* Grid: a warp an element of y. x is [outer, n, inner]; y [outer, inner]. */
static __global__ void __launch_bounds__(PG_ROW_BLOCK)
    find_largest(int64_t *y, const real *x, int64_t count, int64_t n, int64_t inner) {
  int64_t k = row_of_thread<PG_WARP>();
  int lane = place_in_row<PG_WARP>();
  if (k >= count) return;
  const real *row = x + k / inner * n * inner + k % inner;
  best found = {-INFINITY, n}; /* behind every element, -inf too */
  for (int64_t j = lane; j < n; j += PG_WARP) found = better(found, {load(row[j * inner]), j});
  for (int offset = PG_WARP / 2; offset; offset /= 2)
    found = better(found, {__shfl_xor_sync(PG_ALL_LANES, found.value, offset),
                           __shfl_xor_sync(PG_ALL_LANES, found.place, offset)});
  if (lane == 0) y[k] = found.place;
}

pg_status PG_CUDA(argmax)(const pg_call *call) {
  const argmax_views v = argmax_of(call);
  pg_status status = expect_argmax(call);
  if (status) return status;
  int64_t dim = argmax_ints_of(call).dim, outer = 1, inner = 1;
  for (int64_t d = 0; d < dim; d++) outer *= v.x->shape[d];
  for (int64_t d = dim + 1; d < v.x->ndim; d++) inner *= v.x->shape[d];
  LAUNCH(find_largest, pg_blocks(outer * inner, PG_ROW_BLOCK / PG_WARP), PG_ROW_BLOCK, 0, call->stream,
         pg_data<int64_t>(v.y), pg_data<real>(v.x), outer * inner, v.x->shape[dim], inner);
  return pg_launched("argmax");
}
