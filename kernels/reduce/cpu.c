#include "cpu.h"
#include "reduce/reduce.h"
#include "reduce/check.h"

enum { PIECE = 4096, COLUMNS = 1024, SMALL = 16384 };

/* The dimensions of x with neighbours of one kind merged and those of size 1 dropped. Offsets of the places that stay
 * and of those that are reduced add up. */
typedef struct layout {
  int n;
  int64_t shape[PG_MAX_DIMS], stride[PG_MAX_DIMS];
  uint8_t reduced[PG_MAX_DIMS];
  int64_t kept, removed; /* elements of y; elements of x that make one of them */
} layout;

static layout layout_of(const pg_view *x, int64_t mask) {
  layout l = {.kept = 1, .removed = 1};
  for (int d = 0; d < x->ndim; d++) {
    uint8_t reduced = (mask >> d) & 1;
    *(reduced ? &l.removed : &l.kept) *= x->shape[d];
    if (x->shape[d] == 1) continue;
    if (l.n && l.reduced[l.n - 1] == reduced) {
      l.shape[l.n - 1] *= x->shape[d];
      continue;
    }
    l.shape[l.n] = x->shape[d];
    l.reduced[l.n++] = reduced;
  }
  int64_t stride = 1;
  for (int d = l.n - 1; d >= 0; d--) {
    l.stride[d] = stride;
    stride *= l.shape[d];
  }
  return l;
}

/* Offset of place `index` among the dimensions of one kind, those before dimension `end`. */
static int64_t offset_of(const layout *l, int reduced, int end, int64_t index) {
  int64_t offset = 0;
  for (int d = end - 1; d >= 0; d--) {
    if (l->reduced[d] != reduced) continue;
    offset += index % l->shape[d] * l->stride[d];
    index /= l->shape[d];
  }
  return offset;
}

static double identity(int64_t which) {
  return which == PG_REDUCE_max ? -INFINITY : which == PG_REDUCE_min ? INFINITY : 0;
}

/* NaN if one of them is. */
static inline stat larger(stat a, stat b) {
  stat most = b > a ? b : a;
  return b != b ? b : most;
}
static inline stat smaller(stat a, stat b) {
  stat least = b < a ? b : a;
  return b != b ? b : least;
}

/* Partial results are stats, their sums doubles. */
static inline double combined(int64_t which, double a, double b) {
  if (which == PG_REDUCE_max) return (double)larger((stat)a, (stat)b);
  if (which == PG_REDUCE_min) return (double)smaller((stat)a, (stat)b);
  return a + b;
}

static real result(int64_t which, double a, int64_t count) {
  return store((stat)(which == PG_REDUCE_mean ? a / (double)count : a));
}

/* ---- the last dimension is reduced: rows ---- */

static stat row_sum(const real *x, int64_t n) {
  stat sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += load(x[i]);
  return sum;
}

static stat row_extreme(const real *x, int64_t n, stat sign) {
  stat largest = (stat)-INFINITY;
  int nan = 0;
#pragma omp simd reduction(max : largest) reduction(| : nan)
  for (int64_t i = 0; i < n; i++) {
    stat value = sign * load(x[i]);
    largest = value > largest ? value : largest;
    nan |= value != value;
  }
  return nan ? (stat)NAN : sign * largest;
}

static stat row_reduced(int64_t which, const real *x, int64_t n) {
  if (which == PG_REDUCE_max) return row_extreme(x, n, 1);
  if (which == PG_REDUCE_min) return row_extreme(x, n, -1);
  return row_sum(x, n);
}

/* How the reduced elements of one output are cut into pieces: parts of a long row, or some short rows. */
typedef struct cut {
  int64_t length, rows, row_pieces, rows_a_piece, pieces;
} cut;

static cut cut_of(const layout *l) {
  cut c = {.length = l->shape[l->n - 1], .row_pieces = 1, .rows_a_piece = 1};
  c.rows = l->removed / c.length;
  if (c.length > PIECE) c.row_pieces = pg_pieces(c.length, PIECE);
  else c.rows_a_piece = PIECE / c.length;
  c.pieces = pg_pieces(c.rows, c.rows_a_piece) * c.row_pieces;
  return c;
}

static double piece_reduced(int64_t which, const layout *l, const cut *c, const real *x, int64_t piece) {
  int64_t first = piece / c->row_pieces * c->rows_a_piece, from = piece % c->row_pieces * PIECE;
  int64_t end = first + c->rows_a_piece < c->rows ? first + c->rows_a_piece : c->rows;
  int64_t n = c->row_pieces > 1 && c->length - from > PIECE ? PIECE : c->length - from;
  double total = identity(which);
  for (int64_t row = first; row < end; row++)
    total = combined(which, total, (double)row_reduced(which, x + offset_of(l, 1, l->n - 1, row) + from, n));
  return total;
}

static void reduce_rows(int64_t which, const layout *l, real *y, const real *x, double *partial) {
  cut c = cut_of(l);
  int64_t units = l->kept * c.pieces;
#pragma omp parallel for schedule(static) if (l->kept * l->removed > SMALL)
  for (int64_t unit = 0; unit < units; unit++) {
    int64_t k = unit / c.pieces;
    double value = piece_reduced(which, l, &c, x + offset_of(l, 0, l->n - 1, k), unit % c.pieces);
    if (c.pieces > 1) partial[unit] = value;
    else y[k] = result(which, value, l->removed);
  }
  if (c.pieces == 1) return;
  for (int64_t k = 0; k < l->kept; k++) {
    double total = identity(which);
    for (int64_t p = 0; p < c.pieces; p++) total = combined(which, total, partial[k * c.pieces + p]);
    y[k] = result(which, total, l->removed);
  }
}

/* ---- the last dimension stays: columns ---- */

enum { TOGETHER = 4 }; /* rows added in one pass over the totals */

/* total[j] = total[j] combined with x[r][j], r < TOGETHER */
static void add_rows(int64_t which, stat *restrict total, const real *const x[TOGETHER], int64_t n) {
  const real *a = x[0], *b = x[1], *c = x[2], *d = x[3];
  if (which == PG_REDUCE_max) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
      total[j] = larger(total[j], larger(larger(load(a[j]), load(b[j])), larger(load(c[j]), load(d[j]))));
  } else if (which == PG_REDUCE_min) {
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
      total[j] = smaller(total[j], smaller(smaller(load(a[j]), load(b[j])), smaller(load(c[j]), load(d[j]))));
  } else {
#pragma omp simd
    for (int64_t j = 0; j < n; j++) total[j] += (load(a[j]) + load(b[j])) + (load(c[j]) + load(d[j]));
  }
}

/* One chunk of rows, one block of columns: total[0..n). */
static void chunk_reduced(int64_t which, const layout *l, const real *x, int64_t chunk, stat *total, int64_t n) {
  real nothing[COLUMNS]; /* stands for the rows past the end */
  for (int64_t j = 0; j < n; j++) nothing[j] = store((stat)identity(which));
  int64_t end = (chunk + 1) * PG_CHUNK_ROWS < l->removed ? (chunk + 1) * PG_CHUNK_ROWS : l->removed;
  for (int64_t j = 0; j < n; j++) total[j] = (stat)identity(which);
  for (int64_t row = chunk * PG_CHUNK_ROWS; row < end; row += TOGETHER) {
    const real *rows[TOGETHER];
    for (int r = 0; r < TOGETHER; r++) rows[r] = row + r < end ? x + offset_of(l, 1, l->n - 1, row + r) : nothing;
    add_rows(which, total, rows, n);
  }
}

static void reduce_columns(int64_t which, const layout *l, real *y, const real *x, stat *partial) {
  int64_t width = l->shape[l->n - 1], outer = l->kept / width;
  int64_t chunks = pg_pieces(l->removed, PG_CHUNK_ROWS), blocks = pg_pieces(width, COLUMNS);
#pragma omp parallel for schedule(static) if (l->kept * l->removed > SMALL)
  for (int64_t unit = 0; unit < outer * chunks * blocks; unit++) {
    int64_t from = unit % blocks * COLUMNS, chunk = unit / blocks % chunks, k = unit / blocks / chunks;
    int64_t n = width - from < COLUMNS ? width - from : COLUMNS;
    stat block[COLUMNS], *total = chunks > 1 ? partial + (k * chunks + chunk) * width + from : block;
    chunk_reduced(which, l, x + offset_of(l, 0, l->n - 1, k) + from, chunk, total, n);
    if (chunks > 1) continue;
    for (int64_t j = 0; j < n; j++) y[k * width + from + j] = result(which, (double)block[j], l->removed);
  }
  if (chunks == 1) return;
#pragma omp parallel for schedule(static) if (l->kept * chunks > SMALL)
  for (int64_t unit = 0; unit < outer * blocks; unit++) {
    int64_t from = unit % blocks * COLUMNS, k = unit / blocks, n = width - from < COLUMNS ? width - from : COLUMNS;
    double total[COLUMNS];
    for (int64_t j = 0; j < n; j++) total[j] = identity(which);
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      const stat *part = partial + (k * chunks + chunk) * width + from;
      for (int64_t j = 0; j < n; j++) total[j] = combined(which, total[j], (double)part[j]);
    }
    for (int64_t j = 0; j < n; j++) y[k * width + from + j] = result(which, total[j], l->removed);
  }
}

/* ---- integers ---- */

#if PG_REAL == 0
static int64_t integer_at(const pg_view *v, int64_t place) {
  if (v->dtype == PG_INT32) return ((const int32_t *)v->data)[place];
  if (v->dtype == PG_INT64) return ((const int64_t *)v->data)[place];
  return ((const uint8_t *)v->data)[place];
}

static void integer_put(const pg_view *v, int64_t place, int64_t value) {
  if (v->dtype == PG_INT32) ((int32_t *)v->data)[place] = (int32_t)value;
  else if (v->dtype == PG_INT64) ((int64_t *)v->data)[place] = value;
  else ((uint8_t *)v->data)[place] = (uint8_t)value;
}

static void reduce_integers(int64_t which, const layout *l, const pg_view *y, const pg_view *x) {
#pragma omp parallel for schedule(static) if (l->kept * l->removed > SMALL)
  for (int64_t k = 0; k < l->kept; k++) {
    int64_t offset = offset_of(l, 0, l->n, k), total = which == PG_REDUCE_sum ? 0 : integer_at(x, offset);
    for (int64_t r = 0; r < l->removed; r++) {
      int64_t value = integer_at(x, offset + offset_of(l, 1, l->n, r));
      if (which == PG_REDUCE_sum) total = (int64_t)((uint64_t)total + (uint64_t)value);
      else if (which == PG_REDUCE_max ? value > total : value < total) total = value;
    }
    integer_put(y, k, total);
  }
}
#endif

/* ---- the kernels ---- */

int64_t PG_CPU(reduce_scratch)(const pg_call *call) {
  const reduce_views v = reduce_of(call);
  layout l = layout_of(v.x, reduce_ints_of(call).mask);
  if (v.x->dtype != PG_REAL || l.n == 0 || pg_numel(v.x) == 0) return 0;
  if (l.reduced[l.n - 1]) {
    int64_t pieces = cut_of(&l).pieces;
    return pieces > 1 ? l.kept * pieces * (int64_t)sizeof(double) : 0;
  }
  int64_t chunks = pg_pieces(l.removed, PG_CHUNK_ROWS);
  return chunks > 1 ? l.kept * chunks * (int64_t)sizeof(stat) : 0;
}

pg_status PG_CPU(reduce)(const pg_call *call) {
  const reduce_views v = reduce_of(call);
  const reduce_ints ints = reduce_ints_of(call);
  int64_t which = ints.operation;
  layout l = layout_of(v.x, ints.mask);
  pg_status status = expect_reduce(call, l.kept, l.removed);
  if (status) return status;
#if PG_REAL == 0
  if (v.x->dtype != PG_REAL) {
    reduce_integers(which, &l, v.y, v.x);
    return PG_OK;
  }
#endif
  real *out = v.y->data;
  if (l.removed == 0 || l.n == 0) { /* nothing to add, or a single element */
    for (int64_t k = 0; k < l.kept; k++)
      out[k] = l.removed ? *(const real *)v.x->data : result(which, identity(which), 0);
    return PG_OK;
  }
  if (l.kept == 0) return PG_OK;
  PG_EXPECT(call->scratch_bytes >= PG_CPU(reduce_scratch)(call), "reduce: scratch of %lld bytes is too small",
            (long long)call->scratch_bytes);
  if (l.reduced[l.n - 1]) reduce_rows(which, &l, out, v.x->data, call->scratch);
  else reduce_columns(which, &l, out, v.x->data, call->scratch);
  return PG_OK;
}

pg_status PG_CPU(argmax)(const pg_call *call) {
  const argmax_views v = argmax_of(call);
  pg_status status = expect_argmax(call);
  if (status) return status;
  int64_t dim = argmax_ints_of(call).dim, outer = 1, inner = 1;
  for (int64_t d = 0; d < dim; d++) outer *= v.x->shape[d];
  for (int64_t d = dim + 1; d < v.x->ndim; d++) inner *= v.x->shape[d];
  int64_t n = v.x->shape[dim];
#pragma omp parallel for schedule(static) if (outer * inner * n > SMALL)
  for (int64_t k = 0; k < outer * inner; k++) {
    const real *row = (const real *)v.x->data + k / inner * n * inner + k % inner;
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++) {
      stat largest = load(row[best * inner]), value = load(row[j * inner]);
      if (value > largest || (value != value && largest == largest)) best = j;
    }
    ((int64_t *)v.y->data)[k] = best;
  }
  return PG_OK;
}
