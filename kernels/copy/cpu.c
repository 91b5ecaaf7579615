#include "cpu.h"

#include "copy/check.h"
#include "copy/copy.h"
#include "cpu_loop.h"

enum { TILE = 32, BLOCK = 512 };

/* ---- strided copies ---- */

typedef struct row_context {
  int64_t bytes, to_stride, from_stride;
} row_context;

#define COPY_LOOP(TYPE)                                                                                                \
  {                                                                                                                    \
    TYPE *to = (TYPE *)operand[0];                                                                                     \
    const TYPE *from = (const TYPE *)operand[1];                                                                       \
    for (int64_t i = 0; i < n; i++) to[i * c->to_stride] = from[i * c->from_stride];                                   \
  }

static void copy_row(const void *context_, char *const *operand, int64_t n) {
  const row_context *c = context_;
  if (c->to_stride == 1 && c->from_stride == 1) memcpy(operand[0], operand[1], (size_t)(n * c->bytes));
  else if (c->bytes == 1) COPY_LOOP(uint8_t)
  else if (c->bytes == 2) COPY_LOOP(uint16_t)
  else if (c->bytes == 4) COPY_LOOP(uint32_t)
  else COPY_LOOP(uint64_t)
}

/* to[i·to_stride + j] = from[i + j·from_stride], i < rows, j < columns; through a buffer, so that memory is read and
 * written line by line. */
#define TILE_LOOP(TYPE)                                                                                                \
  {                                                                                                                    \
    TYPE *to = (TYPE *)to_, buffer[TILE][TILE + 1];                                                                    \
    const TYPE *from = (const TYPE *)from_;                                                                            \
    for (int64_t j = 0; j < columns; j++)                                                                              \
      for (int64_t i = 0; i < rows; i++) buffer[j][i] = from[i + j * from_stride];                                     \
    for (int64_t i = 0; i < rows; i++)                                                                                 \
      for (int64_t j = 0; j < columns; j++) to[i * to_stride + j] = buffer[j][i];                                      \
  }

static void copy_tile(char *to_, const char *from_, int64_t bytes, int64_t rows, int64_t columns, int64_t to_stride,
                      int64_t from_stride) {
  if (bytes == 1) TILE_LOOP(uint8_t)
  else if (bytes == 2) TILE_LOOP(uint16_t)
  else if (bytes == 4) TILE_LOOP(uint32_t)
  else TILE_LOOP(uint64_t)
}

/* Transposes in tiles that stay in cache; a unit is a row of tiles. */
static void copy_transposed(const pg_loop *loop, int across) {
  int last = loop->ndim - 1;
  int64_t bytes = loop->bytes[0], rows = loop->shape[across], columns = loop->shape[last];
  int64_t tiles = pg_pieces(rows, TILE), units = loop->total / (rows * columns) * tiles;
#pragma omp parallel for schedule(static) if (loop->total > PG_LOOP_PARALLEL)
  for (int64_t unit = 0; unit < units; unit++) {
    int64_t rest = unit / tiles, first = unit % tiles * TILE;
    char *to = loop->data[0] + first * loop->stride[0][across] * bytes;
    const char *from = loop->data[1] + first * bytes;
    for (int d = last - 1; d >= 0; d--) {
      if (d == across) continue;
      to += rest % loop->shape[d] * loop->stride[0][d] * bytes;
      from += rest % loop->shape[d] * loop->stride[1][d] * bytes;
      rest /= loop->shape[d];
    }
    for (int64_t j = 0; j < columns; j += TILE)
      copy_tile(to + j * bytes, from + j * loop->stride[1][last] * bytes, bytes,
                rows - first < TILE ? rows - first : TILE, columns - j < TILE ? columns - j : TILE,
                loop->stride[0][across], loop->stride[1][last]);
  }
}

/* to = from, two views of one shape and dtype, any strides. */
static void copy_view(const pg_view *to, const pg_view *from) {
  const pg_view *const views[2] = {to, from};
  pg_loop loop;
  pg_loop_make(&loop, 2, views);
  if (loop.total == 0) return;
  int across = pg_loop_transposed(&loop);
  row_context c = {loop.bytes[0], pg_loop_inner(&loop, 0), pg_loop_inner(&loop, 1)};
  if (across >= 0) copy_transposed(&loop, across);
  else pg_loop_run(&loop, copy_row, &c);
}

pg_status PG_CPU(copy)(const pg_call *call) {
  const copy_views v = copy_of(call);
  pg_status status = expect_alike("copy", v.y, v.x);
  if (status == PG_OK) copy_view(v.y, v.x);
  return status;
}

pg_status PG_CPU(flip)(const pg_call *call) {
  const flip_views v = flip_of(call);
  pg_status status = expect_flip(call);
  if (status || pg_numel(v.x) == 0) return status;
  pg_view back = reversed(v.x, flip_ints_of(call).dim);
  copy_view(v.y, &back);
  return PG_OK;
}

pg_status PG_CPU(concat)(const pg_call *call) {
  const concat_views v = concat_of(call);
  pg_status status = expect_concat(call);
  int64_t dim = concat_ints_of(call).dim, start = 0;
  for (int k = 1; status == PG_OK && k < call->n; k++) {
    const pg_view *x = pg_view_at(call, k);
    if (!pg_present(x)) continue;
    pg_view part = narrowed(v.y, dim, start, x->shape[dim]);
    copy_view(&part, x);
    start += x->shape[dim];
  }
  return status;
}

pg_status PG_CPU(narrow_backward)(const pg_call *call) {
  const narrow_backward_views v = narrow_backward_of(call);
  const narrow_backward_ints at = narrow_backward_ints_of(call);
  const int64_t dim = at.dim, start = at.start;
  pg_status status = expect_narrow_backward(call);
  if (status || pg_numel(v.dx) == 0) return status;
  int64_t outer = 1, inner = pg_dtype_bytes(v.dx->dtype);
  for (int64_t d = 0; d < dim; d++) outer *= v.dx->shape[d];
  for (int64_t d = dim + 1; d < v.dx->ndim; d++) inner *= v.dx->shape[d];
  int64_t slab = v.dx->shape[dim] * inner, before = start * inner, end = (start + v.dy->shape[dim]) * inner;
#pragma omp parallel for schedule(static) if (outer * slab > 4 * PG_LOOP_PARALLEL)
  for (int64_t o = 0; o < outer; o++) {
    memset((char *)v.dx->data + o * slab, 0, (size_t)before);
    memset((char *)v.dx->data + o * slab + end, 0, (size_t)(slab - end));
  }
  pg_view part = narrowed(v.dx, dim, start, v.dy->shape[dim]);
  copy_view(&part, v.dy);
  return PG_OK;
}

/* ---- dtypes ---- */

/* The nearest integer towards zero within [low, high], NaN is 0. */
static inline int32_t truncated(double x, double low, double high) {
  double limited = x < low ? low : x > high ? high : x;
  return (int32_t)(x == x ? limited : 0);
}

static inline int64_t truncated_long(double x) { /* 2^63 has no place in an int64 */
  if (x >= 0x1p63) return INT64_MAX;
  return x >= -0x1p63 ? (int64_t)x : x == x ? INT64_MIN : 0;
}

static inline int64_t limited(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

#define EACH(TYPE, EXPRESSION)                                                                                         \
  {                                                                                                                    \
    TYPE *to = to_;                                                                                                    \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = (TYPE)(EXPRESSION);                                    \
  }                                                                                                                    \
  break

static void store_reals(void *to_, int dtype, const double *x, int64_t n) {
  switch (dtype) {
  case PG_FLOAT32: EACH(float, x[i]);
  case PG_FLOAT64: EACH(double, x[i]);
  case PG_BFLOAT16: EACH(uint16_t, pg_to_bfloat16((float)x[i]));
  case PG_INT32: EACH(int32_t, truncated(x[i], INT32_MIN, INT32_MAX));
  case PG_INT64: EACH(int64_t, truncated_long(x[i]));
  default: EACH(uint8_t, truncated(x[i], 0, 255));
  }
}

pg_status PG_CPU(fill)(const pg_call *call) {
  const fill_views v = fill_of(call);
  int64_t n = pg_numel(v.y), bytes = pg_dtype_bytes(v.y->dtype);
  double values[BLOCK];
  char block[BLOCK * sizeof(double)];
  for (int k = 0; k < BLOCK; k++) values[k] = fill_floats_of(call).value;
  store_reals(block, v.y->dtype, values, BLOCK);
#pragma omp parallel for schedule(static) if (n > PG_LOOP_PARALLEL)
  for (int64_t start = 0; start < n; start += BLOCK)
    memcpy((char *)v.y->data + start * bytes, block, (size_t)((n - start < BLOCK ? n - start : BLOCK) * bytes));
  return PG_OK;
}

pg_status PG_CPU(arange)(const pg_call *call) {
  const arange_views v = arange_of(call);
  const arange_floats floats = arange_floats_of(call);
  pg_status status = expect_arange(call);
  if (status) return status;
  int64_t n = v.y->shape[0], bytes = pg_dtype_bytes(v.y->dtype);
  for (int64_t start = 0; start < n; start += BLOCK) {
    double values[BLOCK];
    for (int64_t k = 0; k < BLOCK; k++)
      values[k] = floats.start + (double)(start + k) * floats.step;
    store_reals((char *)v.y->data + start * bytes, v.y->dtype, values, n - start < BLOCK ? n - start : BLOCK);
  }
  return PG_OK;
}

#if PG_REAL == 0
#define EACH_FROM(FROM, TYPE, EXPRESSION)                                                                              \
  {                                                                                                                    \
    const FROM *x = from;                                                                                              \
    TYPE *to = to_;                                                                                                    \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = (TYPE)(EXPRESSION);                                    \
  }                                                                                                                    \
  break

static void load_reals(double *to_, const void *from, int dtype, int64_t n) {
  switch (dtype) {
  case PG_FLOAT32: EACH_FROM(float, double, x[i]);
  case PG_FLOAT64: EACH_FROM(double, double, x[i]);
  default: EACH_FROM(uint16_t, double, pg_from_bfloat16(x[i]));
  }
}

static void load_integers(int64_t *to_, const void *from, int dtype, int64_t n) {
  switch (dtype) {
  case PG_INT32: EACH_FROM(int32_t, int64_t, x[i]);
  case PG_INT64: EACH_FROM(int64_t, int64_t, x[i]);
  default: EACH_FROM(uint8_t, int64_t, x[i]);
  }
}

static void store_integers(void *to_, int dtype, const int64_t *x, int64_t n) {
  switch (dtype) {
  case PG_FLOAT32: EACH(float, x[i]);
  case PG_FLOAT64: EACH(double, x[i]);
  case PG_BFLOAT16: EACH(uint16_t, pg_to_bfloat16((float)x[i]));
  case PG_INT32: EACH(int32_t, limited(x[i], INT32_MIN, INT32_MAX));
  case PG_INT64: EACH(int64_t, x[i]);
  default: EACH(uint8_t, limited(x[i], 0, 255));
  }
}

/* `n` <= BLOCK elements side by side. float32 <-> bfloat16 goes straight, the rest through float64 or int64. */
static void convert(void *to_, int to_dtype, const void *from, int from_dtype, int64_t n) {
  if (from_dtype == PG_FLOAT32 && to_dtype == PG_BFLOAT16) {
    const float *x = from;
    uint16_t *to = to_;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = pg_to_bfloat16(x[i]);
  } else if (from_dtype == PG_BFLOAT16 && to_dtype == PG_FLOAT32) {
    const uint16_t *x = from;
    float *to = to_;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) to[i] = pg_from_bfloat16(x[i]);
  } else if (from_dtype <= PG_BFLOAT16) {
    double reals[BLOCK];
    load_reals(reals, from, from_dtype, n);
    store_reals(to_, to_dtype, reals, n);
  } else {
    int64_t integers[BLOCK];
    load_integers(integers, from, from_dtype, n);
    store_integers(to_, to_dtype, integers, n);
  }
}

typedef struct cast_context {
  int to, from;
  int64_t to_bytes, from_bytes, from_stride;
} cast_context;

static void cast_row(const void *context_, char *const *operand, int64_t length) {
  const cast_context *c = context_;
  for (int64_t start = 0; start < length; start += BLOCK) {
    int64_t n = length - start < BLOCK ? length - start : BLOCK;
    const char *from = operand[1] + start * c->from_stride * c->from_bytes;
    uint64_t buffer[BLOCK];
    if (c->from_stride != 1) {
      char *const gather[2] = {(char *)buffer, (char *)from};
      const row_context one = {c->from_bytes, 1, c->from_stride};
      copy_row(&one, gather, n);
      from = (const char *)buffer;
    }
    convert(operand[0] + start * c->to_bytes, c->to, from, c->from, n);
  }
}
#endif

pg_status PG_CPU(cast)(const pg_call *call) {
  const cast_views v = cast_of(call);
  pg_loop loop;
  pg_status status = expect_cast(call, &loop);
  if (status) return status;
  if (v.y->dtype == v.x->dtype) {
    copy_view(v.y, v.x);
    return PG_OK;
  }
#if PG_REAL == 0
  cast_context c = {v.y->dtype, v.x->dtype, loop.bytes[0], loop.bytes[1], pg_loop_inner(&loop, 1)};
  pg_loop_run(&loop, cast_row, &c);
#endif
  return PG_OK;
}
