/* The layout of a packed panel of a matrix product, and how it is multiplied.
 *
 *   element                 one place of a panel: DEPTHS neighbouring depths of one row (or column) of an operand
 *   vector, elements        LANES sums, LANES elements
 *   accumulate(sum, x, y)   sum + x·y lane by lane, over all depths of the elements
 *
 * An element is a number as it is computed in, and bfloat16 is converted while it is packed. Where the processor
 * multiplies pairs of bfloat16 numbers, an element is such a pair as it is stored, the first depth in the low half:
 * half the bytes a depth, and two multiply-adds a lane and instruction. */
#ifndef PERIGEE_MATMUL_ELEMENT_H
#define PERIGEE_MATMUL_ELEMENT_H

/* PG_BFLOAT16_PAIRS asks for pairs by plain C: builds that test them on any processor. */
#if PG_REAL == 2 && (defined(__AVX512BF16__) || defined(PG_BFLOAT16_PAIRS))
#define PAIRS 1
#else
#define PAIRS 0
#endif
#if PAIRS && defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if PAIRS
typedef uint32_t element;
enum { DEPTHS = 2, ONE = 0x3f803f80 }; /* ONE: the number 1 at every depth */
#else
typedef stat element;
enum { DEPTHS = 1, ONE = 1 };
#endif
_Static_assert(sizeof(element) == sizeof(stat), "panels and sums share scratch");

typedef stat vector __attribute__((vector_size(VECTOR_BYTES)));
typedef element elements __attribute__((vector_size(VECTOR_BYTES)));
enum { LANES = VECTOR_BYTES / (int)sizeof(stat) };

/* How many elements hold `depth` depths. */
ALWAYS_INLINE int64_t element_count(int64_t depth) { return pg_pieces(depth, DEPTHS); }

ALWAYS_INLINE elements load_elements(const element *p) {
  elements v;
  memcpy(&v, p, sizeof v);
  return v;
}
ALWAYS_INLINE void store_elements(element *p, elements v) { memcpy(p, &v, sizeof v); }

/* Every lane x. (Minus zero, and not plus: so -0 stays.) */
ALWAYS_INLINE elements broadcast(element x) { return x - (elements){0}; }

/* The element made of stored values `step` apart, of which there are `left`; what is missing is zero. */
ALWAYS_INLINE element make_element(const real *from, int64_t step, int64_t left) {
#if PAIRS
  return (element)from[0] | (left > 1 ? (element)from[step] << 16 : 0);
#else
  (void)step, (void)left;
  return load(from[0]);
#endif
}

/* LANES elements made of neighbouring stored values. */
ALWAYS_INLINE elements make_elements(const real *from) {
#if PG_REAL == 2 && !PAIRS
  typedef uint16_t halves __attribute__((vector_size(VECTOR_BYTES / 2)));
  typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES)));
  halves h;
  memcpy(&h, from, sizeof h);
  return (elements)(__builtin_convertvector(h, words) << 16);
#else
  elements v;
  memcpy(&v, from, sizeof v);
  return v;
#endif
}

/* For pairs the instruction VDPBF16PS, and its twin in plain C: two fused multiply-adds, the second depth's
 * first, each rounded to nearest even (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2). A
 * product of bfloat16 numbers is exact in float32 as long as it stays in its range, so that it does not matter whether
 * the compiler fuses. The instruction takes subnormal numbers for zeros, among its operands and its results; plain C
 * does not. tests/runtime/pairs_test.c holds both against fmaf(). */
ALWAYS_INLINE vector accumulate(vector sum, elements x, elements y) {
#if !PAIRS
  return sum + x * y;
#elif defined(__AVX512BF16__)
  return (vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
#else
  sum += (vector)(x & 0xffff0000u) * (vector)(y & 0xffff0000u);
  return sum + (vector)(x << 16) * (vector)(y << 16);
#endif
}

#endif
