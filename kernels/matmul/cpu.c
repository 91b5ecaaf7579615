/* Matrix multiplication on the CPU: tiles of the output are shared out among the threads; a tile is computed by
 * register tiles (gemm.h), and the epilogue runs on each while it is in the first-level cache. Oblong work is turned so
 * that the operand with few rows is the packed one. The sums of op(A) are added up from its packed panels. */
#include <omp.h>

#include "cpu.h"

#include "activation/functions.h"
#include "matmul/check.h"
#include "matmul/gemm.h"
#include "matmul/matmul.h"

/* Tiles are as large as the second-level cache likes, or smaller where threads would go without. */
enum {
  TILE_ROWS = 384,
  TILE_COLUMNS = 768,
  STRIP_MOST = 1 << 21,   /* elements of the right operand that stay packed */
  TILE_LEAST = 48,
  TILES_PER_THREAD = 8,
  PACK_COLUMNS = 96,
  SWAP_ROWS = 48,         /* up to here a product may be turned */
  SKINNY_ROWS = 48,       /* up to here the right operand isn't worth packing */
  PARALLEL_WORK = 1 << 18 /* multiplications from which on other threads are worth waking */
};

typedef struct product {
  operand left, right; /* of the first matrix of the batch */
  int64_t rows, columns, depth, batches;
  int swapped;        /* left is op(B)'s columns and right is op(A)'s rows: tiles come out transposed */
  int pack_left;      /* or read it in place */
  int right_in_place; /* too few rows to make up for packing */
  int64_t tile_rows, tile_columns, row_tiles, column_tiles;
  int keep_right;        /* a strip of the right operand stays packed from one tile of its columns to the next */
  int64_t left_space, right_space, partial_space, thread_space; /* elements of scratch */
  matmul_views v;
  int batch_dims;
  /* epilogue */
  real *out, *pre, *sums;
  const real *bias, *aux;
  int64_t out_columns;
  int activation;
} product;

/* ---- epilogue ---- */

/* n elements of a row of out: values[n] are the sums. */
ALWAYS_INLINE void finish_row(const product *p, int64_t offset, int64_t column, const stat *restrict values, int n,
                              int activation) {
  stat x[WIDE];
  real *restrict out = p->out + offset;
  if (p->bias) {
    const real *bias = p->bias + column;
#pragma omp simd
    for (int c = 0; c < n; c++) x[c] = values[c] + load(bias[c]);
    values = x;
  }
  if (p->pre) {
    real *restrict pre = p->pre + offset;
#pragma omp simd
    for (int c = 0; c < n; c++) pre[c] = store(values[c]);
  }
  if (activation > ACTIVATION_DERIVATIVE) {
    const real *restrict aux = p->aux + offset;
#pragma omp simd
    for (int c = 0; c < n; c++) out[c] = store(activate(values[c], load(aux[c]), activation));
  } else {
#pragma omp simd
    for (int c = 0; c < n; c++) out[c] = store(activate(load(store(values[c])), 0, activation));
  }
}

ALWAYS_INLINE void finish_tile(const product *p, int64_t start, int64_t row, int64_t column, int64_t rows,
                               int64_t columns, const stat *tile, int64_t pitch, int activation) {
  for (int64_t r = 0; r < rows; r++) {
    int64_t offset = start + (row + r) * p->out_columns + column;
    if (columns == NR) finish_row(p, offset, column, tile + r * pitch, NR, activation);
    else finish_row(p, offset, column, tile + r * pitch, (int)columns, activation);
  }
}

/* Stores a register tile of `rows` x `columns` at (row, column) of the product; `start`: its matrix in out. */
static void finish(const product *p, int64_t start, int64_t row, int64_t column, int64_t rows, int64_t columns,
                   const stat *tile) {
  stat turned[NR * MR];
  int64_t pitch = NR;
  if (p->swapped) {
    for (int64_t c = 0; c < columns; c++)
      for (int64_t r = 0; r < rows; r++) turned[c * MR + r] = tile[r * NR + c];
    int64_t t = row;
    row = column, column = t;
    t = rows, rows = columns, columns = t;
    tile = turned, pitch = MR;
  }
  switch (p->activation) {
#define FINISH(kind) \
  case kind: finish_tile(p, start, row, column, rows, columns, tile, pitch, kind); break;
#define CASES(function) FINISH(ACTIVATION_##function) FINISH(ACTIVATION_DERIVATIVE + ACTIVATION_##function)
    FINISH(ACTIVATION_NONE)
    PG_ACTIVATIONS(CASES)
#undef CASES
#undef FINISH
  }
}

/* Asks for the cache lines that finish() will write, while the sums are still being made. */
ALWAYS_INLINE void announce(const product *p, int64_t start, int64_t row, int64_t column, int64_t rows) {
  if (p->swapped) return;
  const real *to = p->out + start + row * p->out_columns + column;
  for (int64_t r = 0; r < rows; r++) __builtin_prefetch(to + r * p->out_columns, 1);
}

/* ---- tiles ---- */

static operand moved(operand x, int64_t rows, int64_t depth) {
  x.data += rows * x.row + depth * x.step;
  return x;
}

/* Where matrix `batch` of a tensor begins: broadcast dimensions stand still. */
static int64_t batch_offset(const product *p, const pg_view *v, int64_t batch) {
  const pg_view *out = p->v.out;
  int shift = out->ndim - v->ndim;
  int64_t offset = 0;
  for (int d = p->batch_dims - 1; d >= 0; d--) {
    int64_t index = batch % out->shape[d];
    batch /= out->shape[d];
    if (d >= shift && v->shape[d - shift] != 1) offset += index * v->stride[d - shift];
  }
  return offset;
}

/* A tile of the output: its place, its size, its matrix's place in out, and its operands' first elements. */
typedef struct tile {
  int64_t row, column, rows, columns, start;
  int64_t strip; /* which columns of which matrix */
  operand left, right;
} tile;

static tile tile_of(const product *p, int64_t number) {
  int64_t per_matrix = p->row_tiles * p->column_tiles, batch = number / per_matrix;
  tile t = {.row = number % p->row_tiles * p->tile_rows,
            .column = number % per_matrix / p->row_tiles * p->tile_columns,
            .start = batch * p->rows * p->columns,
            .strip = number / p->row_tiles};
  t.rows = least(p->tile_rows, p->rows - t.row);
  t.columns = least(p->tile_columns, p->columns - t.column);
  t.left = moved(p->left, t.row, 0);
  t.right = moved(p->right, t.column, 0);
  if (p->batches > 1) {
    t.left.data += batch_offset(p, p->swapped ? p->v.b : p->v.a, batch);
    t.right.data += batch_offset(p, p->swapped ? p->v.a : p->v.b, batch);
  }
  return t;
}

/* Lets a register tile go straight to out: where there is nothing to do but to add the bias. */
ALWAYS_INLINE int aim_at_out(const product *p, const tile *t, int64_t i, int64_t j, sums *s) {
#if PG_REAL != 2
  if (p->activation != ACTIVATION_NONE || p->pre || p->swapped || p->depth > KC) return 0;
  if (t->rows - i < MR || t->columns - j < NR) return 0;
  s->to = p->out + t->start + (t->row + i) * p->out_columns + t->column + j;
  s->to_pitch = p->out_columns;
  s->bias = p->bias ? p->bias + t->column + j : NULL;
  return 1;
#else
  (void)p, (void)t, (void)i, (void)j, (void)s;
  return 0;
#endif
}

/* totals[r] += the sum of row r of `rows` packed rows; what is added to what depends on the depth alone. */
static void add_panels(double *totals, const element *panels, int64_t rows, int64_t depth) {
  const elements one = broadcast(ONE);
  const int64_t count = element_count(depth);
  for (int64_t start = 0; start < rows; start += MR) {
    const element *panel = panels + start * count;
    vector parts[MR] = {{0}}; /* of LANES elements' depth in a piece, each MR rows */
    element rest[LANES * MR] = {0};
    stat part[LANES * MR];
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
#pragma GCC unroll 14
      for (int v = 0; v < MR; v++) parts[v] = accumulate(parts[v], load_elements(panel + k * MR + v * LANES), one);
    memcpy(rest, panel + k * MR, (size_t)((count - k) * MR) * sizeof *rest);
#pragma GCC unroll 14
    for (int v = 0; v < MR; v++) parts[v] = accumulate(parts[v], load_elements(rest + v * LANES), one);
    memcpy(part, parts, sizeof part);
    for (int r = 0; r < MR && start + r < rows; r++)
      for (int l = 0; l < LANES; l++) totals[start + r] += (double)part[l * MR + r];
  }
}

/* Adds one block of the depth, from `start` to `start + depth`, to a tile; the last block finishes it. */
static void multiply_block(const product *p, const tile *t, int64_t start, int64_t depth, int packed,
                           element *scratch) {
  element *left_panels = scratch, *right_panels = scratch + p->left_space;
  stat *partial = (stat *)(right_panels + p->right_space);
  double *totals = (double *)(partial + p->partial_space); /* of the tile's rows of op(A) */
  stat local[MR * NR] __attribute__((aligned(64)));
  int64_t whole = t->rows - t->rows % MR, count = element_count(depth), last = start + depth == p->depth;
  operand l = moved(t->left, 0, start), r = moved(t->right, 0, start);
  if (p->pack_left) pack(left_panels, l, t->rows, depth, MR);
  else if (whole < t->rows) pack_edge(left_panels, moved(l, whole, 0), t->rows - whole, depth, MR);
  if (p->sums && t->column == 0) {
    if (start == 0) memset(totals, 0, (size_t)t->rows * sizeof *totals);
    add_panels(totals, left_panels, t->rows, depth);
    for (int64_t r = 0; last && r < t->rows; r++) p->sums[t->row + r] = store((stat)totals[r]);
  }
  for (int64_t j = 0; j < t->columns; j += NR) {
    int64_t before = p->keep_right ? element_count(start) * pg_round_up(t->columns, NR) + j * count : 0;
    element *right_panel = right_panels + before;
    sums s = {.add = start > 0, .right = right_panel, .right_pitch = NR, .count = count};
    int64_t columns = least(NR, t->columns - j);
#if PG_REAL != 2
    if (p->right_in_place && columns == NR) s.right = r.data + j, s.right_pitch = r.step;
#endif
    if (s.right == right_panel && !packed) pack(right_panel, moved(r, j, 0), columns, depth, NR);
    for (int64_t i = 0; i < t->rows; i += MR) {
      int64_t rows = least(MR, t->rows - i);
      if (last) announce(p, t->start, t->row + i, t->column + j, rows);
      int straight = aim_at_out(p, t, i, j, &s);
      if (!straight) {
        s.to = p->depth > KC ? partial + (j / NR * pg_pieces(t->rows, MR) + i / MR) * MR * NR : local;
        s.to_pitch = NR, s.bias = NULL;
      }
#if PG_REAL != 2
      if (!p->pack_left && i < whole) tile_from_rows(&s, l.data + i * l.row, l.row);
      else
#endif
        tile_from_panel(&s, left_panels + (p->pack_left ? i * count : 0));
      if (last && !straight) finish(p, t->start, t->row + i, t->column + j, rows, columns, s.to);
    }
  }
}

/* `strip` is what the scratch's right panels hold, and becomes this tile's. */
static void compute_tile(const product *p, int64_t number, int64_t *strip, element *scratch) {
  tile t = tile_of(p, number);
  int packed = p->keep_right && *strip == t.strip;
  *strip = t.strip;
  int64_t blocks = p->depth > KC ? pg_pieces(p->depth, KC) : 1, start = 0;
  int64_t unit = 16 * DEPTHS, depth = pg_round_up(pg_pieces(p->depth, blocks), unit); /* for pack_transposed() */
  do {
    multiply_block(p, &t, start, least(depth, p->depth - start), packed, scratch);
    start += depth;
  } while (start < p->depth);
}

/* Cuts `size` into `pieces` nearly equal ones, multiples of `unit`. */
static int64_t piece(int64_t size, int64_t pieces, int64_t unit) { return pg_round_up(pg_pieces(size, pieces), unit); }

static void choose_tiles(product *p) {
  int threads = pg_kernel_threads();
  int64_t row_pieces = pg_pieces(p->rows, TILE_ROWS), column_pieces = pg_pieces(p->columns, TILE_COLUMNS);
  for (;;) {
    p->tile_rows = piece(p->rows, row_pieces, MR);
    p->tile_columns = piece(p->columns, column_pieces, NR);
    p->row_tiles = pg_pieces(p->rows, p->tile_rows);
    p->column_tiles = pg_pieces(p->columns, p->tile_columns);
    int64_t tiles = p->row_tiles * p->column_tiles * p->batches;
    if (threads == 1 || tiles >= TILES_PER_THREAD * threads || (tiles >= threads && tiles % threads == 0)) break;
    if (p->tile_rows >= p->tile_columns && p->tile_rows > TILE_LEAST) row_pieces++;
    else if (p->tile_columns > TILE_LEAST) column_pieces++;
    else break;
  }
  p->left_space = (p->pack_left ? p->tile_rows : MR) * element_count(KC) + PANEL_SLACK;
  int64_t strip = p->tile_columns * element_count(p->depth);
  p->keep_right = p->row_tiles > 1 && strip <= STRIP_MOST;
  p->right_space = (p->keep_right ? strip : NR * element_count(KC)) + PANEL_SLACK;
  p->partial_space = p->depth > KC ? p->tile_rows * p->tile_columns : 0;
  int64_t totals = pg_present(p->v.sums) ? p->tile_rows * (int64_t)(sizeof(double) / sizeof(stat)) : 0;
  p->thread_space = pg_round_up(p->left_space + p->right_space + p->partial_space + totals, 64);
}

/* ---- the contract ---- */

/* Runs a call that has been checked. */
static product describe(const pg_call *call) {
  const matmul_views v = matmul_of(call);
  const matmul_ints ints = matmul_ints_of(call);
  const pg_view *out = v.out, *a = v.a, *b = v.b;
  int64_t m = out->shape[out->ndim - 2], n = out->shape[out->ndim - 1];
  int64_t k = a->shape[a->ndim - (ints.transpose_a ? 2 : 1)];
  product p = {.rows = m,
               .columns = n,
               .depth = k,
               .batches = batch_count(out),
               .v = v,
               .batch_dims = out->ndim - 2,
               .out = out->data,
               .pre = v.pre->data,
               .sums = v.sums->data,
               .bias = v.bias->data,
               .aux = v.aux->data,
               .out_columns = n,
               .activation = (int)ints.activation};
  p.left = ints.transpose_a ? (operand){a->data, 1, m} : (operand){a->data, k, 1};
  p.right = ints.transpose_b ? (operand){b->data, k, 1} : (operand){b->data, 1, n};
  if (!ints.transpose_a && batch_count(b) == 1 && batch_count(a) == p.batches) { /* one long matrix */
    p.rows *= p.batches;
    p.batches = 1;
  }
  const int summed = pg_present(v.sums); /* they are made of packed rows of op(A) */
  if (!summed && p.rows <= SWAP_ROWS && p.right.step == 1 && p.columns > p.rows) {
    operand t = p.left;
    p.left = p.right, p.right = t;
    int64_t rows = p.rows;
    p.rows = p.columns, p.columns = rows;
    p.swapped = 1;
  }
  /* Rows at a distance of many half pages share few places in the first-level cache. */
  int crowded = MANY_REGISTERS && p.left.row * (int64_t)sizeof(real) % 2048 == 0;
  p.pack_left = PG_REAL == 2 || summed || p.left.step != 1 || crowded || p.columns >= PACK_COLUMNS;
  p.right_in_place = PG_REAL != 2 && !p.pack_left && p.right.row == 1 && p.rows <= SKINNY_ROWS;
  choose_tiles(&p);
  return p;
}

/* The sums of out's columns, each in the order of the rows. */
static void add_columns(const product *p, real *to) {
  enum { STRIP = 64 };
  const int64_t rows = pg_numel(p->v.out) / p->out_columns, columns = p->out_columns;
#pragma omp parallel for schedule(static)
  for (int64_t start = 0; start < columns; start += STRIP) {
    double totals[STRIP] = {0};
    const int n = (int)least(STRIP, columns - start);
    for (int64_t r = 0; r < rows; r++)
      for (int c = 0; c < n; c++) totals[c] += (double)load(p->out[r * columns + start + c]);
    for (int c = 0; c < n; c++) to[start + c] = store((stat)totals[c]);
  }
}

int64_t PG_CPU(matmul_scratch)(const pg_call *call) {
  if (matmul_check(call)) return -1;
  if (pg_numel(matmul_of(call).out) == 0) return 0;
  product p = describe(call);
  return pg_kernel_threads() * p.thread_space * (int64_t)sizeof(stat);
}

pg_status PG_CPU(matmul)(const pg_call *call) {
  pg_status status = matmul_check(call);
  if (status) return status;
  if (pg_numel(matmul_of(call).out) == 0) return PG_OK;
  product p = describe(call);
  int64_t tiles = p.row_tiles * p.column_tiles * p.batches;
  int64_t room = call->scratch_bytes / (p.thread_space * (int64_t)sizeof(stat));
  /* All threads or one: a team of another size than the last one's is made again. */
  int small = tiles == 1 || p.batches * p.rows * p.columns * (p.depth + 16) < PARALLEL_WORK;
  int threads = (int)least(small ? 1 : pg_kernel_threads(), room);
  PG_EXPECT(threads >= 1, "matmul: %lld bytes of scratch, %lld needed", (long long)call->scratch_bytes,
            (long long)(p.thread_space * (int64_t)sizeof(stat)));
#pragma omp parallel num_threads(threads)
  {
    element *scratch = (element *)call->scratch + omp_get_thread_num() * p.thread_space;
    int64_t strip = -1;
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tiles; t++) compute_tile(&p, t, &strip, scratch);
  }
  if (pg_present(p.v.column_sums)) add_columns(&p, p.v.column_sums->data);
  return PG_OK;
}
