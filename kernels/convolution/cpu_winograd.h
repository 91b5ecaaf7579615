/* Convolution by 3×3 kernels through Winograd's transforms, F(2×2, 3×3) of Lavin and Gray 2016 (arXiv 1509.09308):
 * a tile of 2×2 results takes 16 multiplications where the sums as they stand take 36.
 *
 *   V = Bᵀ d B of a tile's 4×4 pixels d,  U = G g Gᵀ of a 3×3 kernel g,  y = Aᵀ (Σ_c U∘V) A
 *
 * For each of the 16 elements of a transform the sum over the channels is a product of matrices, U [O,C] times V [C,tiles],
 * by matmul's register tile. Of images that are enlarged by nearest neighbours a tile's pixels are three rows and
 * columns, the middle one twice: the third row and column of V are 0, and 9 products are left of the 16.
 *
 * Threads share out blocks of tiles. An element's sum runs over the channels in order, whatever the blocks. */
#ifndef PERIGEE_CONVOLUTION_CPU_WINOGRAD_H
#define PERIGEE_CONVOLUTION_CPU_WINOGRAD_H

#include "convolution/check.h"
#include "matmul/gemm.h"

enum { WINOGRAD = 16, BLOCK_BYTES = 3 << 20 /* of V and of the products of a block, in the caches behind the first */ };

typedef struct winograd {
  int64_t images, channels, height, width, outputs; /* of x, as it lies in memory */
  int64_t enlarge, rows, columns;                   /* of y */
  int64_t tile_rows, tile_columns, tiles;           /* of an image, and of all */
  int64_t block, blocks;                            /* tiles in a block, a multiple of NR */
  int64_t panels;                                   /* of MR outputs */
  int64_t line, input_pitch, product_pitch; /* from one buffered row, or element of a transform, to the next */
  int64_t weight_space, input_space, product_space, thread_space; /* elements of scratch */
} winograd;

static winograd winograd_of(const pg_view *x, const pg_view *y, int64_t enlarge) {
  winograd w = {.images = x->shape[0], .channels = x->shape[1], .height = x->shape[2], .width = x->shape[3],
                .outputs = y->shape[1], .enlarge = enlarge, .rows = y->shape[2], .columns = y->shape[3]};
  w.tile_rows = pg_pieces(w.rows, 2), w.tile_columns = pg_pieces(w.columns, 2);
  w.tiles = w.images * w.tile_rows * w.tile_columns;
  w.panels = pg_pieces(w.outputs, MR);
  const int64_t each = WINOGRAD * (w.channels + w.panels * MR) * (int64_t)sizeof(stat);
  const int64_t fit = BLOCK_BYTES / each / NR * NR, share = pg_round_up(pg_pieces(w.tiles, pg_kernel_threads()), NR);
  w.block = fit < NR ? NR : fit < share ? fit : share;
  w.blocks = pg_pieces(w.tiles, w.block);
  w.line = pg_round_up(w.width + 3, 16);
  w.input_pitch = w.channels * w.block + 16; /* not all in the same sets of the first-level cache */
  w.product_pitch = w.panels * MR * w.block + 16;
  w.weight_space = pg_round_up(WINOGRAD * w.panels * MR * w.channels, 64) + 64;
  w.input_space = WINOGRAD * w.input_pitch;
  w.product_space = WINOGRAD * w.product_pitch;
  w.thread_space = pg_round_up(w.input_space + w.product_space + 6 * w.line + WINOGRAD * w.block, 64);
  return w;
}

/* Whether element i of a transform is 0 for all images that are enlarged. */
static int is_empty(const winograd *w, int i) { return w->enlarge == 2 && (i / 4 == 2 || i % 4 == 2); }

/* ---- U ---- */

/* The kernels of a panel of MR outputs: to[element][c][r], elements `pitch` apart. */
static void transform_weights(stat *to, int64_t pitch, const winograd *w, const real *weight, int64_t panel) {
  for (int64_t r = 0; r < MR; r++) {
    const int64_t o = panel * MR + r;
    for (int64_t c = 0; c < w->channels; c++) {
      stat *u = to + c * MR + r, half[4][3];
      if (o >= w->outputs) {
        for (int i = 0; i < WINOGRAD; i++) u[i * pitch] = 0;
        continue;
      }
      const real *g = weight + (o * w->channels + c) * 9;
      for (int j = 0; j < 3; j++) {
        const stat a = load(g[j]), b = load(g[3 + j]), d = load(g[6 + j]);
        half[0][j] = a, half[1][j] = (a + b + d) / 2, half[2][j] = (a - b + d) / 2, half[3][j] = d;
      }
      for (int i = 0; i < 4; i++) {
        const stat a = half[i][0], b = half[i][1], d = half[i][2];
        u[(4 * i) * pitch] = a, u[(4 * i + 1) * pitch] = (a + b + d) / 2;
        u[(4 * i + 2) * pitch] = (a - b + d) / 2, u[(4 * i + 3) * pitch] = d;
      }
    }
  }
}

/* ---- V ---- */

/* A run of tiles in one row of tiles. */
typedef struct tile_run {
  int64_t image, row, column, count;
} tile_run;

static tile_run run_at(const winograd *w, int64_t tile, int64_t most) {
  tile_run r = {tile / (w->tile_rows * w->tile_columns), tile / w->tile_columns % w->tile_rows, tile % w->tile_columns, 0};
  r.count = least(most, w->tile_columns - r.column);
  return r;
}

/* Row y of a plane, from x = first − 1 on, n numbers; zeros outside. */
static void fetch(stat *restrict to, const winograd *w, const real *plane, int64_t y, int64_t first, int64_t n) {
  const int64_t begin = first > 0 ? 0 : 1 - first, end = least(n, w->width + 1 - first);
  if (y < 0 || y >= w->height || end <= begin) {
    memset(to, 0, (size_t)n * sizeof *to);
    return;
  }
  const real *row = plane + y * w->width;
  for (int64_t k = 0; k < begin; k++) to[k] = 0;
  for (int64_t k = begin; k < end; k++) to[k] = load(row[first - 1 + k]);
  for (int64_t k = end; k < n; k++) to[k] = 0;
}

/* The transforms of a run's tiles of one plane: to[element][tile], elements `pitch` apart. */
static void transform_run(stat *restrict to, int64_t pitch, stat *restrict room, const winograd *w, const real *plane,
                          const tile_run *r) {
  const stat *rows[4];
  stat *even = room + 4 * w->line, *odd = even + w->line;
  for (int k = 0; k < 4; k++) {
    rows[k] = room + k * w->line;
    fetch(room + k * w->line, w, plane, 2 * r->row - 1 + k, 2 * r->column, 2 * r->count + 2);
  }
  for (int i = 0; i < 4; i++) { /* d0 − d2, d1 + d2, d2 − d1, d1 − d3 */
    const stat *left = rows[i == 0 ? 0 : i == 2 ? 2 : 1], *right = rows[i == 2 ? 1 : i == 3 ? 3 : 2];
    const stat sign = i == 1 ? 1 : -1;
#pragma omp simd
    for (int64_t q = 0; q <= r->count; q++) {
      odd[q] = left[2 * q] + sign * right[2 * q];
      even[q] = left[2 * q + 1] + sign * right[2 * q + 1];
    }
    stat *v = to + 4 * i * pitch;
#pragma omp simd
    for (int64_t q = 0; q < r->count; q++) {
      v[q] = odd[q] - odd[q + 1];
      v[pitch + q] = even[q] + odd[q + 1];
      v[2 * pitch + q] = odd[q + 1] - even[q];
      v[3 * pitch + q] = even[q] - even[q + 1];
    }
  }
}

/* The same of images that are enlarged: a tile is one pixel of theirs, seen with its neighbours. */
static void transform_enlarged(stat *restrict to, int64_t pitch, stat *restrict room, const winograd *w,
                               const real *plane, const tile_run *r) {
  const stat *rows[3];
  for (int k = 0; k < 3; k++) {
    rows[k] = room + k * w->line;
    fetch(room + k * w->line, w, plane, r->row - 1 + k, r->column, r->count + 2);
  }
  for (int i = 0; i < 4; i++) {
    if (i == 2) continue;
    const stat *left = rows[i ? 1 : 0], *right = rows[i == 3 ? 2 : 1];
    const stat sign = i == 1 ? 1 : -1;
    stat *v = to + 4 * i * pitch;
#pragma omp simd
    for (int64_t q = 0; q < r->count; q++) {
      const stat x = left[q] + sign * right[q], y = left[q + 1] + sign * right[q + 1];
      const stat z = left[q + 2] + sign * right[q + 2];
      v[q] = x - y;
      v[pitch + q] = y + y;
      v[3 * pitch + q] = y - z;
    }
  }
}

/* V of a block: to[element][panel of NR tiles][c][NR]. */
static void transform_block(stat *to, stat *room, const winograd *w, const real *x, int64_t first, int64_t count) {
  const int64_t pitch = w->block, used = pg_round_up(count, NR);
  stat *flat = room + 6 * w->line; /* one channel's: [element][tile] */
  for (int64_t c = 0; c < w->channels; c++) {
    for (int64_t done = 0; done < count;) {
      const tile_run r = run_at(w, first + done, count - done);
      const real *plane = x + (r.image * w->channels + c) * w->height * w->width;
      if (w->enlarge == 2) transform_enlarged(flat + done, pitch, room, w, plane, &r);
      else transform_run(flat + done, pitch, room, w, plane, &r);
      done += r.count;
    }
    for (int i = 0; i < WINOGRAD; i++) {
      if (is_empty(w, i)) continue;
      stat *from = flat + i * pitch, *panel = to + i * w->input_pitch + c * NR;
      for (int64_t t = count; t < used; t++) from[t] = 0;
      for (int64_t t = 0; t < used; t += NR) memcpy(panel + t * w->channels, from + t, NR * sizeof *to);
    }
  }
}

/* ---- the products, and y ---- */

/* to[element][o][tile] = Σ_c U[o,c]·V[c,tile] */
static void multiply_transforms(stat *to, const winograd *w, const stat *u, const stat *v, int64_t count) {
  for (int i = 0; i < WINOGRAD; i++) {
    if (is_empty(w, i)) continue;
    for (int64_t p = 0; p < w->panels; p++) {
      const stat *left = u + (i * w->panels + p) * MR * w->channels;
      for (int64_t t = 0; t < count; t += NR) {
        const sums s = {.to = to + i * w->product_pitch + p * MR * w->block + t, .to_pitch = w->block,
                        .right = (const element *)(v + i * w->input_pitch + t * w->channels), .right_pitch = NR,
                        .count = w->channels};
        tile_from_panel(&s, (const element *)left);
      }
    }
  }
}

/* Column j of row i of Aᵀ M, of tile q; `enlarged`: the third row of M is 0, and no numbers stand there. */
ALWAYS_INLINE stat add_rows(const stat *m, int64_t pitch, int64_t q, int j, const int i, const int enlarged) {
  const stat a = m[(i ? 4 + j : j) * pitch + q], b = m[(i ? 12 + j : 4 + j) * pitch + q];
  const stat c = enlarged ? 0 : m[(8 + j) * pitch + q];
  return i ? a - c - b : a + b + c;
}

/* Row i of the results of `n` tiles side by side, `wide` of them: 2·n, or one less at an odd edge. */
ALWAYS_INLINE void finish_row(real *restrict row, const stat *m, int64_t pitch, int64_t n, int64_t wide, stat bias,
                              const int i, const int enlarged) {
#pragma omp simd
  for (int64_t q = 0; q < n - wide % 2; q++) {
    const stat s0 = add_rows(m, pitch, q, 0, i, enlarged), s1 = add_rows(m, pitch, q, 1, i, enlarged);
    const stat s2 = enlarged ? 0 : add_rows(m, pitch, q, 2, i, enlarged), s3 = add_rows(m, pitch, q, 3, i, enlarged);
    row[2 * q] = store(s0 + s1 + s2 + bias);
    row[2 * q + 1] = store(s1 - s2 - s3 + bias);
  }
  if (wide % 2) {
    const int64_t q = n - 1;
    row[2 * q] = store(add_rows(m, pitch, q, 0, i, 0) + add_rows(m, pitch, q, 1, i, 0) +
                       add_rows(m, pitch, q, 2, i, 0) + bias);
  }
}

/* y of a block of tiles. */
static void finish_block(real *y, const winograd *w, const stat *products, const real *bias, int64_t first,
                         int64_t count) {
  const int64_t pitch = w->product_pitch;
  for (int64_t o = 0; o < w->outputs; o++) {
    const stat *of = products + o * w->block, shift = bias ? load(bias[o]) : 0;
    for (int64_t done = 0; done < count;) {
      const tile_run r = run_at(w, first + done, count - done);
      const int64_t wide = least(2 * r.count, w->columns - 2 * r.column);
      real *row = y + ((r.image * w->outputs + o) * w->rows + 2 * r.row) * w->columns + 2 * r.column;
      if (w->enlarge == 2) {
        finish_row(row, of + done, pitch, r.count, wide, shift, 0, 1);
        finish_row(row + w->columns, of + done, pitch, r.count, wide, shift, 1, 1);
      } else {
        finish_row(row, of + done, pitch, r.count, wide, shift, 0, 0);
        if (2 * r.row + 1 < w->rows) finish_row(row + w->columns, of + done, pitch, r.count, wide, shift, 1, 0);
      }
      done += r.count;
    }
  }
}

static int64_t winograd_scratch(const winograd *w) {
  return (w->weight_space + pg_kernel_threads() * w->thread_space) * (int64_t)sizeof(stat);
}

static void run_winograd(const winograd *w, real *y, const real *x, const real *weight, const real *bias,
                         stat *scratch, int threads) {
  stat *u = scratch;
  const int64_t pitch = w->panels * MR * w->channels;
#pragma omp parallel num_threads(threads)
  {
    stat *v = scratch + w->weight_space + omp_get_thread_num() * w->thread_space;
    stat *products = v + w->input_space, *room = products + w->product_space;
#pragma omp for schedule(static)
    for (int64_t p = 0; p < w->panels; p++) transform_weights(u + p * MR * w->channels, pitch, w, weight, p);
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < w->blocks; b++) {
      const int64_t first = b * w->block, count = least(w->block, w->tiles - first);
      transform_block(v, room, w, x, first, count);
      multiply_transforms(products, w, u, v, count);
      finish_block(y, w, products, bias, first, count);
    }
  }
}

#endif
