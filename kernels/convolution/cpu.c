/* Convolution on the CPU: each of the three kernels is a product of matrices whose right operand, the images seen
 * through the kernels' window, is gathered panel by panel where it is needed and lies nowhere as a whole. Tiles of
 * the product are shared out among the threads; the inside of a tile is matmul's (matmul/gemm.h).
 *
 *                    out                    left                  right, gathered
 *   forward          y [O, B·P·Q]           weight [O, C·kh·kw]   x       [C·kh·kw, B·P·Q]
 *   backward_input   dx [C, B·H·W]          weight [C, O·kh·kw]   dy      [O·kh·kw, B·H·W]
 *   backward_weight  dweight [O, C·kh·kw]   dy [O, B·P·Q]         x       [B·P·Q, C·kh·kw]
 *
 * A line is what a window's element (channel, i, j) sees at one position after the other. */
#include <omp.h>

#include "cpu.h"

#include "convolution/check.h"
#include "convolution/convolution.h"
#include "convolution/cpu_winograd.h"
#include "matmul/gemm.h"

enum {
  TILE_ROWS = 384, /* as large as the second-level cache likes, or smaller where threads would go without */
  TILE_COLUMNS = 768,
  TILE_LEAST = 48,
  TILES_PER_THREAD = 4,
  PARALLEL_WORK = 1 << 18 /* multiplications from which on other threads are worth waking */
};

/* Images and the window that slides over them: from position (row, column) its element (i, j) sees the image at
 * (row·times + sign·(i − top)) / over, and likewise across; 0 where that is no whole number, or outside. */
typedef struct window {
  const real *images;
  int64_t channels, height, width; /* of the images */
  int64_t rows, columns;           /* positions in an image */
  int64_t tall, broad;             /* elements */
  int64_t times, over, sign, top, left;
} window;

typedef struct product {
  int kernel;
  int64_t rows, columns;
  int64_t spans, depth; /* the sums run over `spans` times `depth` */
  int64_t plane;        /* columns of out that lie side by side: [columns / plane, rows, plane] */
  const real *left, *bias;
  real *out;
  window window;
  int64_t block; /* of the depth, at most KC */
  int64_t tile_rows, tile_columns, row_tiles, column_tiles;
  int64_t left_space, right_space, partial_space, thread_space; /* elements of scratch */
} product;

typedef struct tile {
  int64_t row, column, rows, columns;
} tile;

static int64_t between(int64_t x, int64_t low, int64_t high) { return x < low ? low : least(x, high); }

/* ---- gathering ---- */

/* to[c] = row[(from + c·times) / over] of a row of the images, c < n. */
static void gather_row(real *restrict to, const window *w, const real *row, int64_t from, int64_t n) {
  if (w->times == 1 && w->over == 1) {
    const int64_t begin = between(-from, 0, n), end = between(w->width - from, begin, n);
    memset(to, 0, (size_t)begin * sizeof *to);
    memcpy(to + begin, row + from + begin, (size_t)(end - begin) * sizeof *to);
    memset(to + end, 0, (size_t)(n - end) * sizeof *to);
  } else if (w->over == 1) {
    for (int64_t c = 0; c < n; c++) {
      const int64_t x = from + c * w->times;
      to[c] = x >= 0 && x < w->width ? row[x] : 0;
    }
  } else {
    memset(to, 0, (size_t)n * sizeof *to);
    for (int64_t c = ((-from) % w->over + w->over) % w->over; c < n; c += w->over) {
      const int64_t x = (from + c) / w->over;
      if (from + c >= 0 && x < w->width) to[c] = row[x];
    }
  }
}

/* n positions of a line, from one of them on, in the order image, row, column. */
static void gather_line(real *to, const window *w, int64_t channel, int64_t i, int64_t j, int64_t image, int64_t row,
                        int64_t column, int64_t n) {
  const int64_t down = w->sign * (i - w->top), across = w->sign * (j - w->left);
  while (n > 0) {
    const int64_t run = least(n, w->columns - column), y = row * w->times + down;
    if (y < 0 || y % w->over || y / w->over >= w->height) {
      memset(to, 0, (size_t)run * sizeof *to);
    } else {
      const real *from = w->images + ((image * w->channels + channel) * w->height + y / w->over) * w->width;
      gather_row(to, w, from, column * w->times + across, run);
    }
    to += run, n -= run;
    column = 0;
    if (++row == w->rows) row = 0, image++;
  }
}

/* A panel of the right operand whose depth are lines: n positions, from `position` of all images on, of `depth`
 * lines. */
static void pack_lines(element *to, real *room, const window *w, int64_t line, int64_t depth, int64_t position,
                       int64_t n) {
  const int64_t area = w->tall * w->broad, plane = w->rows * w->columns;
  const int64_t image = position / plane, row = position % plane / w->columns, column = position % w->columns;
  int64_t channel = line / area, i = line % area / w->broad, j = line % w->broad;
  for (int64_t k = 0; k < depth; k++) {
    gather_line(room + k * NR, w, channel, i, j, image, row, column, n);
    if (++j == w->broad) {
      j = 0;
      if (++i == w->tall) i = 0, channel++;
    }
  }
  pack(to, (operand){room, 1, NR}, n, depth, NR);
}

/* A panel whose depth are positions: `depth` of them, from `position` of an image on, of n lines. */
static void pack_positions(element *to, real *room, const window *w, int64_t line, int64_t n, int64_t image,
                           int64_t position, int64_t depth) {
  const int64_t area = w->tall * w->broad;
  for (int64_t c = 0; c < n; c++) {
    const int64_t tap = (line + c) % area;
    gather_line(room + c * depth, w, (line + c) / area, tap / w->broad, tap % w->broad, image, position / w->columns,
                position % w->columns, depth);
  }
  pack(to, (operand){room, depth, 1}, n, depth, NR);
}

/* ---- tiles ---- */

/* The weight as backward_input has it: rows are channels c, the depth runs over (o, i, j). */
static void pack_turned_weight(element *to, real *room, const product *p, const tile *t, int64_t start,
                               int64_t depth) {
  const int64_t area = p->window.tall * p->window.broad;
  for (int64_t first = 0; first < t->rows; first += MR) {
    const int64_t rows = least(MR, t->rows - first);
    for (int64_t k = 0; k < depth; k++) {
      const real *from = p->left + ((start + k) / area * p->rows + t->row + first) * area + (start + k) % area;
      for (int64_t r = 0; r < rows; r++) room[k * MR + r] = from[r * area];
    }
    pack(to + first * element_count(depth), (operand){room, 1, MR}, rows, depth, MR);
  }
}

static void pack_left(element *to, real *room, const product *p, const tile *t, int64_t span, int64_t start,
                      int64_t depth) {
  if (p->kernel == CONVOLUTION_INPUT) pack_turned_weight(to, room, p, t, start, depth);
  else pack(to, (operand){p->left + (span * p->rows + t->row) * p->depth + start, p->depth, 1}, t->rows, depth, MR);
}

/* Stores a register tile of `rows` x `columns` at (row, column) of the product. */
static void finish(const product *p, int64_t row, int64_t column, int64_t rows, int64_t columns, const stat *values) {
  for (int64_t done = 0, run; done < columns; done += run) {
    const int64_t at = (column + done) % p->plane;
    real *out = p->out + ((column + done) / p->plane * p->rows + row) * p->plane + at;
    run = least(columns - done, p->plane - at);
    for (int64_t r = 0; r < rows; r++) {
      const stat bias = p->bias ? load(p->bias[row + r]) : 0;
      for (int64_t c = 0; c < run; c++) out[r * p->plane + c] = store(values[r * NR + done + c] + bias);
    }
  }
}

/* Adds one block of the depth to a tile; the last block finishes it. */
static void multiply_block(const product *p, const tile *t, int64_t span, int64_t start, int64_t depth,
                           element *scratch) {
  element *left = scratch, *right = left + p->left_space;
  stat *partial = (stat *)(right + p->right_space);
  real *room = (real *)(partial + p->partial_space);
  stat local[MR * NR] __attribute__((aligned(64)));
  const int first = span == 0 && start == 0, last = span == p->spans - 1 && start + depth == p->depth;
  const int64_t count = element_count(depth);
  pack_left(left, room, p, t, span, start, depth);
  for (int64_t j = 0; j < t->columns; j += NR) {
    const int64_t columns = least(NR, t->columns - j);
    if (p->kernel == CONVOLUTION_WEIGHT)
      pack_positions(right, room, &p->window, t->column + j, columns, span, start, depth);
    else pack_lines(right, room, &p->window, start, depth, t->column + j, columns);
    for (int64_t i = 0; i < t->rows; i += MR) {
      stat *to = first && last ? local : partial + (j / NR * pg_pieces(t->rows, MR) + i / MR) * MR * NR;
      const sums s = {.to = to, .to_pitch = NR, .add = !first, .right = right, .right_pitch = NR, .count = count};
      tile_from_panel(&s, left + i * count);
      if (last) finish(p, t->row + i, t->column + j, least(MR, t->rows - i), columns, to);
    }
  }
}

static void compute_tile(const product *p, int64_t number, element *scratch) {
  tile t = {.row = number % p->row_tiles * p->tile_rows, .column = number / p->row_tiles * p->tile_columns};
  t.rows = least(p->tile_rows, p->rows - t.row);
  t.columns = least(p->tile_columns, p->columns - t.column);
  for (int64_t span = 0; span < p->spans; span++)
    for (int64_t start = 0; start < p->depth; start += p->block)
      multiply_block(p, &t, span, start, least(p->block, p->depth - start), scratch);
}

static void choose_tiles(product *p) {
  const int64_t most = TILES_PER_THREAD * pg_kernel_threads();
  p->tile_rows = pg_round_up(pg_pieces(p->rows, pg_pieces(p->rows, TILE_ROWS)), MR);
  p->tile_columns = pg_round_up(pg_pieces(p->columns, pg_pieces(p->columns, TILE_COLUMNS)), NR);
  for (;;) {
    p->row_tiles = pg_pieces(p->rows, p->tile_rows), p->column_tiles = pg_pieces(p->columns, p->tile_columns);
    if (pg_kernel_threads() == 1 || p->row_tiles * p->column_tiles >= most) break;
    if (p->tile_columns >= p->tile_rows && p->tile_columns > TILE_LEAST)
      p->tile_columns = pg_round_up(p->tile_columns / 2, NR);
    else if (p->tile_rows > TILE_LEAST) p->tile_rows = pg_round_up(p->tile_rows / 2, MR);
    else break;
  }
}

/* ---- the contract ---- */

/* Runs a call that has been checked. */
static product describe(const pg_call *call, int kernel) {
  const convolution_size n = convolution_sizes(call, kernel);
  const int64_t area = n.kernel_height * n.kernel_width, positions = n.rows * n.columns;
  const convolution_tensors t = convolution_tensors_of(call, kernel);
  product p = {.kernel = kernel, .spans = 1};
  p.window = (window){.images = t.x->data, .channels = n.channels, .height = n.height,
                      .width = n.width, .rows = n.rows, .columns = n.columns, .tall = n.kernel_height,
                      .broad = n.kernel_width, .times = n.stride, .over = 1, .sign = 1, .top = n.top, .left = n.left};
  switch (kernel) {
  case CONVOLUTION_FORWARD:
    p.rows = n.outputs, p.plane = positions, p.columns = n.images * positions, p.depth = n.channels * area;
    p.out = t.y->data, p.left = t.weight->data, p.bias = t.bias->data;
    break;
  case CONVOLUTION_INPUT:
    p.rows = n.channels, p.plane = n.height * n.width, p.columns = n.images * p.plane, p.depth = n.outputs * area;
    p.out = t.x->data, p.left = t.weight->data;
    p.window.images = t.y->data, p.window.channels = n.outputs; /* from x's positions to y */
    p.window.height = n.rows, p.window.width = n.columns, p.window.rows = n.height, p.window.columns = n.width;
    p.window.times = 1, p.window.over = n.stride, p.window.sign = -1;
    break;
  default:
    p.rows = n.outputs, p.plane = p.columns = n.channels * area, p.spans = n.images, p.depth = positions;
    p.out = t.weight->data, p.left = t.y->data;
  }
  const int64_t unit = 16 * DEPTHS; /* whole vectors for pack() */
  p.block = pg_round_up(pg_pieces(p.depth, pg_pieces(p.depth, KC)), unit);
  choose_tiles(&p);
  p.left_space = p.tile_rows * element_count(KC) + PANEL_SLACK;
  p.right_space = NR * element_count(KC) + PANEL_SLACK;
  p.partial_space = p.spans > 1 || p.depth > p.block ? p.tile_rows * p.tile_columns : 0;
  p.thread_space = pg_round_up(p.left_space + p.right_space + p.partial_space + WIDE * KC, 64);
  return p;
}

static int64_t scratch_of(const pg_call *call, int kernel) {
  if (expect_convolution(call, kernel)) return -1;
  return pg_kernel_threads() * describe(call, kernel).thread_space * (int64_t)sizeof(stat);
}

static pg_status run(const pg_call *call, int kernel) {
  const pg_status status = expect_convolution(call, kernel);
  if (status) return status;
  const product p = describe(call, kernel);
  const int64_t tiles = p.row_tiles * p.column_tiles, bytes = p.thread_space * (int64_t)sizeof(stat);
  const int small = tiles == 1 || p.rows * p.columns * p.spans * p.depth < PARALLEL_WORK;
  const int threads = (int)least(small ? 1 : pg_kernel_threads(), call->scratch_bytes / bytes);
  PG_EXPECT(threads >= 1, "%s: %lld bytes of scratch, %lld needed", convolution_name(kernel),
            (long long)call->scratch_bytes, (long long)bytes);
#pragma omp parallel num_threads(threads)
  {
    element *scratch = (element *)call->scratch + omp_get_thread_num() * p.thread_space;
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tiles; t++) compute_tile(&p, t, scratch);
  }
  return PG_OK;
}

pg_status PG_CPU(convolution)(const pg_call *call) { return run(call, CONVOLUTION_FORWARD); }
pg_status PG_CPU(convolution_backward_input)(const pg_call *call) { return run(call, CONVOLUTION_INPUT); }
pg_status PG_CPU(convolution_backward_weight)(const pg_call *call) { return run(call, CONVOLUTION_WEIGHT); }
int64_t PG_CPU(convolution_scratch)(const pg_call *call) { return scratch_of(call, CONVOLUTION_FORWARD); }
int64_t PG_CPU(convolution_backward_input_scratch)(const pg_call *call) { return scratch_of(call, CONVOLUTION_INPUT); }
int64_t PG_CPU(convolution_backward_weight_scratch)(const pg_call *call) {
  return scratch_of(call, CONVOLUTION_WEIGHT);
}

/* ---- 3×3 kernels ---- */

#if PG_REAL == 2

/* Every pixel of x as a square of two by two. */
static void enlarge(real *to, const pg_view *x) {
  const real *from = x->data;
  const int64_t rows = x->shape[0] * x->shape[1] * x->shape[2], width = x->shape[3];
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    real *row = to + r * 4 * width;
    for (int64_t c = 0; c < width; c++) row[2 * c] = row[2 * c + 1] = from[r * width + c];
    memcpy(row + 2 * width, row, (size_t)(2 * width) * sizeof *row);
  }
}

int64_t PG_CPU(convolution_3x3_scratch)(const pg_call *call) {
  if (expect_convolution_3x3(call)) return -1;
  const pg_call plain = plain_convolution(call);
  const int64_t bytes = scratch_of(&plain, CONVOLUTION_FORWARD);
  return bytes < 0 ? bytes : enlarged_bytes(call) + bytes;
}

pg_status PG_CPU(convolution_3x3)(const pg_call *call) {
  const pg_status status = expect_convolution_3x3(call);
  if (status) return status;
  if (enlarged_bytes(call)) enlarge(call->scratch, convolution_3x3_of(call).x);
  const pg_call plain = plain_convolution(call);
  return run(&plain, CONVOLUTION_FORWARD);
}

#else

int64_t PG_CPU(convolution_3x3_scratch)(const pg_call *call) {
  if (expect_convolution_3x3(call)) return -1;
  const convolution_3x3_views v = convolution_3x3_of(call);
  const winograd w = winograd_of(v.x, v.y, convolution_3x3_ints_of(call).enlarge);
  return winograd_scratch(&w);
}

pg_status PG_CPU(convolution_3x3)(const pg_call *call) {
  const pg_status status = expect_convolution_3x3(call);
  if (status) return status;
  const convolution_3x3_views v = convolution_3x3_of(call);
  const winograd w = winograd_of(v.x, v.y, convolution_3x3_ints_of(call).enlarge);
  const int small = w.blocks == 1 && w.outputs * w.channels * w.tiles < PARALLEL_WORK;
  run_winograd(&w, v.y->data, v.x->data, v.weight->data, v.bias->data, call->scratch, small ? 1 : pg_kernel_threads());
  return PG_OK;
}

#endif
