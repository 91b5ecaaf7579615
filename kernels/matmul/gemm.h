/* The inside of a matrix multiplication: packing into panels and the register tile, in vectors of the compiler.
 *
 * After K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a register tile of
 * MR x NR sums holds still while k runs; its left operand comes from memory as it lies (or from packed panels of MR
 * rows), its right operand from a packed panel of NR columns that stays in the first-level cache. Packing also
 * transposes, and makes of what is stored the elements that are multiplied (element.h), so all layouts and dtypes share
 * one inner loop. */
#ifndef PERIGEE_MATMUL_GEMM_H
#define PERIGEE_MATMUL_GEMM_H

#include "matmul/element.h"

#if defined(__AVX512F__) || defined(__aarch64__)
#define MANY_REGISTERS 1
#else
#define MANY_REGISTERS 0
#endif

enum {
  MR = MANY_REGISTERS ? 14 : 6, /* of 32 registers 28 hold sums, of 16 registers 12 */
  NR = 2 * LANES,
  WIDE = NR > MR ? NR : MR,
  KC = (VECTOR_BYTES == 64 ? 256 : 384) * DEPTHS, /* of a block: its right panel stays in the first-level cache */
  PANEL_SLACK = 16 /* what packing may write past a panel's end: LANES or more, and whole cache lines */
};

/* One operand: row r (of the left one; column r of the right one) at depth k is data[r·row + k·step]. One of the two
 * strides is 1. */
typedef struct operand {
  const real *data;
  int64_t row, step;
} operand;

ALWAYS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

ALWAYS_INLINE vector load_vector(const stat *p) {
  vector v;
  memcpy(&v, p, sizeof v);
  return v;
}
ALWAYS_INLINE void store_vector(stat *p, vector v) { memcpy(p, &v, sizeof v); }

/* Which lanes of two vectors x (0 to LANES - 1) and y (LANES and on) make up the first and the second after an exchange
 * at a distance. */
#define FIRST(distance, l) ((l) & (distance) ? LANES + (l) - (distance) : (l))
#define SECOND(distance, l) ((l) & (distance) ? LANES + (l) : (l) + (distance))
#define MASK2(f, d) f(d, 0), f(d, 1)
#define MASK4(f, d) MASK2(f, d), f(d, 2), f(d, 3)
#define MASK8(f, d) MASK4(f, d), f(d, 4), f(d, 5), f(d, 6), f(d, 7)
#define MASK16(f, d) MASK8(f, d), f(d, 8), f(d, 9), f(d, 10), f(d, 11), f(d, 12), f(d, 13), f(d, 14), f(d, 15)
#if PG_REAL == 1
typedef int64_t lane_numbers __attribute__((vector_size(VECTOR_BYTES)));
#define VECTOR_LANES (VECTOR_BYTES / 8)
#else
typedef int32_t lane_numbers __attribute__((vector_size(VECTOR_BYTES)));
#define VECTOR_LANES (VECTOR_BYTES / 4)
#endif
#if VECTOR_LANES == 16
#define MASK(f, d)                                                                                                     \
  { MASK16(f, d) }
#elif VECTOR_LANES == 8
#define MASK(f, d)                                                                                                     \
  { MASK8(f, d) }
#elif VECTOR_LANES == 4
#define MASK(f, d)                                                                                                     \
  { MASK4(f, d) }
#else
#define MASK(f, d)                                                                                                     \
  { MASK2(f, d) }
#endif

#define EXCHANGE(distance)                                                                                             \
  for (int i = 0; i < LANES; i++) {                                                                                    \
    if (i & (distance)) continue;                                                                                      \
    const lane_numbers first = MASK(FIRST, distance), second = MASK(SECOND, distance);                                 \
    elements x = v[i], y = v[i + (distance)];                                                                          \
    v[i] = __builtin_shuffle(x, y, first);                                                                             \
    v[i + (distance)] = __builtin_shuffle(x, y, second);                                                               \
  }

/* Transposes a square of LANES x LANES: squares off the diagonal change places, half as large each time. */
ALWAYS_INLINE void transpose_square(elements v[LANES]) {
#if VECTOR_LANES >= 16
#pragma GCC unroll 16
  EXCHANGE(8)
#endif
#if VECTOR_LANES >= 8
#pragma GCC unroll 16
  EXCHANGE(4)
#endif
#if VECTOR_LANES >= 4
#pragma GCC unroll 16
  EXCHANGE(2)
#endif
#pragma GCC unroll 16
  EXCHANGE(1)
}

/* Packs `width` whole rows that are contiguous along the depth: to[k·width + r]. A store may spill past its group of
 * LANES rows into what the next store overwrites, at last into PANEL_SLACK. */
ALWAYS_INLINE void pack_transposed(element *to, const real *from, int64_t row, int64_t depth, int width) {
  enum { GROUPS = WIDE / LANES + 1 };
  int groups = (int)pg_pieces(width, LANES);
  int64_t k = 0, count = element_count(depth);
  for (; (k + LANES) * DEPTHS <= depth; k += LANES) {
    elements v[GROUPS][LANES];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
#pragma GCC unroll 16
      for (int l = 0; l < LANES; l++)
        v[g][l] = g * LANES + l < width ? make_elements(from + (g * LANES + l) * row + k * DEPTHS) : (elements){0};
      transpose_square(v[g]);
    }
#pragma GCC unroll 16
    for (int l = 0; l < LANES; l++)
#pragma GCC unroll 4
      for (int g = 0; g < groups; g++) store_elements(to + (k + l) * width + g * LANES, v[g][l]);
  }
  for (; k < count; k++)
    for (int r = 0; r < width; r++)
      to[k * width + r] = make_element(from + r * row + k * DEPTHS, 1, depth - k * DEPTHS);
}

/* Packs `rows` <= width rows of any layout, and zeros for the rest. */
static void pack_edge(element *to, operand x, int64_t rows, int64_t depth, int width) {
  for (int64_t k = 0; k < element_count(depth); k++) {
    const real *from = x.data + k * DEPTHS * x.step;
    for (int64_t r = 0; r < width; r++)
      to[k * width + r] = r < rows ? make_element(from + r * x.row, x.step, depth - k * DEPTHS) : 0;
  }
}

/* Packs `rows` rows, x.data being the first at the first depth, into panels of `width`: panel after panel, in each
 * element after element along the depth. Rows missing in the last panel are zeros. */
ALWAYS_INLINE void pack(element *to, operand x, int64_t rows, int64_t depth, int width) {
  int64_t whole = rows - rows % width, count = element_count(depth);
  if (x.step == 1) {
    for (int64_t r = 0; r < whole; r += width) pack_transposed(to + r * count, x.data + r * x.row, x.row, depth, width);
  } else {
    enum { BLOCK = 16 / DEPTHS }; /* a few depths for all panels: short runs of reads and of writes */
    for (int64_t start = 0; start < count; start += BLOCK) {
      int64_t end = start + BLOCK < count ? start + BLOCK : count;
      for (int64_t r = 0; r < whole; r += width) {
        for (int64_t k = start; k < end; k++) {
          const real *from = x.data + r + k * DEPTHS * x.step;
          for (int d = 0; d < DEPTHS; d++) __builtin_prefetch(from + (BLOCK * DEPTHS + d) * x.step, 0, 2);
          element *panel = to + r * count + k * width;
          for (int l = 0; l < width; l++) panel[l] = make_element(from + l, x.step, depth - k * DEPTHS);
        }
      }
    }
  }
  if (whole < rows) {
    x.data += whole * x.row;
    pack_edge(to + whole * count, x, rows - whole, depth, width);
  }
}

/* The operands of a register tile and its place in the result. */
typedef struct sums {
  stat *to; /* [MR][NR], rows `to_pitch` apart */
  int64_t to_pitch;
  int add;              /* += instead of = */
  const stat *bias;     /* [NR], added at last; or NULL */
  const element *right; /* [count][NR], `right_pitch` from one element of a column to the next */
  int64_t right_pitch, count;
} sums;

/* to = or += the sum over k of a[r·row + k·step]·right[k·right_pitch + c], + bias. */
ALWAYS_INLINE void register_tile(const sums *s, const element *a, int64_t row, int64_t step) {
  vector sum[MR][2];
  const element *right = s->right;
  const int64_t count = s->count, pitch = s->right_pitch;
#pragma GCC unroll 14
  for (int r = 0; r < MR; r++) sum[r][0] = sum[r][1] = (vector){0};
#pragma GCC unroll 2
  for (int64_t k = 0; k < count; k++) {
    elements b0 = load_elements(right + k * pitch), b1 = load_elements(right + k * pitch + LANES);
#pragma GCC unroll 14
    for (int r = 0; r < MR; r++) {
      elements x = broadcast(a[r * row + k * step]);
      sum[r][0] = accumulate(sum[r][0], x, b0);
      sum[r][1] = accumulate(sum[r][1], x, b1);
    }
  }
  const stat *bias = s->bias;
  const int64_t to_pitch = s->to_pitch, add = s->add;
#pragma GCC unroll 14
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      stat *to = s->to + r * to_pitch + half * LANES;
      vector v = sum[r][half];
      if (add) v += load_vector(to);
      if (bias) v += load_vector(bias + half * LANES);
      store_vector(to, v);
    }
  }
}

/* From packed panels of MR rows. */
static __attribute__((noinline)) void tile_from_panel(const sums *s, const element *panel) {
  register_tile(s, panel, 1, MR);
}

#if PG_REAL != 2
/* From rows as they lie in memory, contiguous along the depth. */
static __attribute__((noinline)) void tile_from_rows(const sums *s, const stat *rows, int64_t row) {
  register_tile(s, rows, row, 1);
}
#endif

#endif
