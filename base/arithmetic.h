/* Arithmetic that kernels and the runtime share. */
#ifndef PERIGEE_ARITHMETIC_H
#define PERIGEE_ARITHMETIC_H

#include <stdint.h>
#include <string.h>

/* n / piece, rounded up: the pieces that n is cut into, of which the last may be shorter. */
static inline int64_t pg_pieces(int64_t n, int64_t piece) { return (n + piece - 1) / piece; }

/* The least multiple of `unit` that is n or more. */
static inline int64_t pg_round_up(int64_t n, int64_t unit) { return pg_pieces(n, unit) * unit; }

/* bfloat16 is the upper half of a float32. */
static inline float pg_from_bfloat16(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

/* To the nearest, ties to even; NaN stays NaN. */
static inline uint16_t pg_to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  return (uint16_t)(x != x ? quiet : rounded);
}

#endif
