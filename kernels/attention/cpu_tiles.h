/* Small matrix products for attention: C (=, +=) A·B on matrices of `stat` in a thread's scratch, B in panels.
 *
 * A panel holds PANEL neighbouring columns of B, [depth][PANEL], so that a tile of C (TILE_ROWS rows, one panel) stays
 * in registers while A and the panel stream past. The last panel is one vector wide where that is enough; columns past
 * B's width are zeros. C's rows must have room for whole panels. The order of every sum depends on the sizes alone. */
#ifndef PERIGEE_ATTENTION_CPU_TILES_H
#define PERIGEE_ATTENTION_CPU_TILES_H

#include "cpu.h"

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, TILE_ROWS = 12 }; /* 24 of 32 registers accumulate */
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32, TILE_ROWS = 6 }; /* 12 of 16 */
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, TILE_ROWS = 8 }; /* 16 of 32 */
#else
enum { VECTOR_BYTES = 16, TILE_ROWS = 6 }; /* 12 of 16 */
#endif
enum {
  LANES = VECTOR_BYTES / sizeof(stat),
  PANEL = 2 * LANES,
  DEPTH_CHUNK = 256,       /* a panel of this depth stays in the first-level cache */
  LINE = 64 / sizeof(stat) /* elements in a cache line */
};

typedef stat vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(stat)), may_alias));


/* Elements of a matrix [depth][columns] in panels. */
static inline int64_t panels_size(int64_t depth, int64_t columns) { return depth * pg_round_up(columns, PANEL); }

/* Row stride for a matrix of `columns` columns that is also read down its columns: an odd number of cache lines, so
 * that the rows do not fall into few cache sets. */
static inline int64_t row_stride(int64_t columns) {
  int64_t lines = pg_round_up(pg_round_up(columns, PANEL), LINE) / LINE;
  return (lines | 1) * LINE;
}

/* One tile: C [rows, vectors·LANES] from A(m,k) = a[m·a_row + k·a_depth] and a panel. `rows`, `vectors` and one of A's
 * strides are constants where this is called, so that every loop but the one over k unrolls. */
static inline __attribute__((always_inline)) void tile(const int rows, const int vectors, int64_t depth, const stat *a,
                                                       int64_t a_row, int64_t a_depth, const stat *b, stat *c,
                                                       int64_t c_row, int add) {
  vector sum[TILE_ROWS][2];
#pragma GCC unroll 16
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++) sum[m][j] = (vector){0};
  for (int64_t k = 0; k < depth; k++) {
    vector bk[2];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++) bk[j] = *(const vector *)(b + k * vectors * LANES + j * LANES);
#pragma GCC unroll 16
    for (int m = 0; m < rows; m++) {
      stat am = a[m * a_row + k * a_depth];
#pragma GCC unroll 2
      for (int j = 0; j < vectors; j++) sum[m][j] += am * bk[j];
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < rows; m++)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; j++) {
      vector *to = (vector *)(c + m * c_row + j * LANES);
      if (add) *to += sum[m][j];
      else *to = sum[m][j];
    }
}

/* C [rows, one panel] by tiles of falling height. */
static inline __attribute__((always_inline)) void tile_column(const int vectors, int64_t rows, int64_t depth,
                                                              const stat *a, int64_t a_row, int64_t a_depth,
                                                              const stat *b, stat *c, int64_t c_row, int add) {
  int64_t m = 0;
  for (; m + TILE_ROWS <= rows; m += TILE_ROWS)
    tile(TILE_ROWS, vectors, depth, a + m * a_row, a_row, a_depth, b, c + m * c_row, c_row, add);
  for (; m + 4 <= rows; m += 4) tile(4, vectors, depth, a + m * a_row, a_row, a_depth, b, c + m * c_row, c_row, add);
  for (; m + 2 <= rows; m += 2) tile(2, vectors, depth, a + m * a_row, a_row, a_depth, b, c + m * c_row, c_row, add);
  for (; m < rows; m++) tile(1, vectors, depth, a + m * a_row, a_row, a_depth, b, c + m * c_row, c_row, add);
}

/* Vectors in the panel that starts at `column`. */
static inline int panel_vectors(int64_t column, int64_t columns) { return columns - column > LANES ? 2 : 1; }

/* C [rows,columns] = (add: +=) A·B, A [rows,depth] in rows of stride a_row, B [depth,columns] in panels. */
static void product(int64_t rows, int64_t columns, int64_t depth, const stat *a, int64_t a_row, const stat *b, stat *c,
                    int64_t c_row, int add) {
  for (int64_t first = 0; first < depth; first += DEPTH_CHUNK) {
    int64_t chunk = depth - first < DEPTH_CHUNK ? depth - first : DEPTH_CHUNK;
    for (int64_t n = 0; n < columns; n += PANEL) {
      int vectors = panel_vectors(n, columns);
      const stat *panel = b + n * depth + first * vectors * LANES;
      if (vectors == 2) tile_column(2, rows, chunk, a + first, a_row, 1, panel, c + n, c_row, add || first);
      else tile_column(1, rows, chunk, a + first, a_row, 1, panel, c + n, c_row, add || first);
    }
  }
}

/* C [rows,columns] = (add: +=) Aᵀ·B, A [depth,rows] in rows of stride a_depth. Row blocks outside, so that A's columns
 * are read once. */
static void product_transposed(int64_t rows, int64_t columns, int64_t depth, const stat *a, int64_t a_depth,
                               const stat *b, stat *c, int64_t c_row, int add) {
  enum { BLOCK = 8 * TILE_ROWS };
  for (int64_t m = 0; m < rows; m += BLOCK) {
    int64_t block = rows - m < BLOCK ? rows - m : BLOCK;
    for (int64_t n = 0; n < columns; n += PANEL) {
      if (panel_vectors(n, columns) == 2)
        tile_column(2, block, depth, a + m, 1, a_depth, b + n * depth, c + m * c_row + n, c_row, add);
      else tile_column(1, block, depth, a + m, 1, a_depth, b + n * depth, c + m * c_row + n, c_row, add);
    }
  }
}

/* B [rows,columns], rows of stride x_row, into panels. */
static void pack_panels(stat *panels, const real *x, int64_t x_row, int64_t rows, int64_t columns) {
  for (int64_t n = 0; n < columns; n += PANEL) {
    int64_t width = panel_vectors(n, columns) * LANES, used = columns - n < width ? columns - n : width;
    stat *to = panels + n * rows;
    for (int64_t k = 0; k < rows; k++, to += width) {
      for (int64_t j = 0; j < used; j++) to[j] = load(x[k * x_row + n + j]);
      for (int64_t j = used; j < width; j++) to[j] = 0;
    }
  }
}

/* Bᵀ for B [rows,columns] into panels: depth `columns`, `rows` columns. The rows of a head lie far apart: they are
 * fetched ahead of their use. */
static void pack_panels_transposed(stat *panels, const real *x, int64_t x_row, int64_t rows, int64_t columns) {
  enum { AHEAD = 16 };
  for (int64_t n = 0; n < rows; n += PANEL) {
    int64_t width = panel_vectors(n, rows) * LANES, used = rows - n < width ? rows - n : width;
    stat *to = panels + n * columns;
    for (int64_t j = 0; j < used; j++) {
      const real *from = x + (n + j) * x_row;
      if (n + j + AHEAD < rows)
        for (int64_t k = 0; k < columns; k += 64 / (int64_t)sizeof(real)) __builtin_prefetch(from + AHEAD * x_row + k);
      for (int64_t k = 0; k < columns; k++) to[k * width + j] = load(from[k]);
    }
    for (int64_t j = used; j < width; j++)
      for (int64_t k = 0; k < columns; k++) to[k * width + j] = 0;
  }
}

/* to [rows][columns] = factor·x */
static void copy_rows(stat *to, const real *x, int64_t x_row, int64_t rows, int64_t columns, stat factor) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < columns; k++) to[i * columns + k] = factor * load(x[i * x_row + k]);
}

#endif
