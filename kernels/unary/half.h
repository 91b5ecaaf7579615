/* Rounding to the numbers of float16 (IEEE 754 binary16), to the nearest, of two the even one. */
#ifndef PERIGEE_UNARY_HALF_H
#define PERIGEE_UNARY_HALF_H

#include <string.h>

#if PG_REAL == 1
typedef uint64_t half_bits;
enum { HALF_DROPPED = 42 };                                /* bits of the fraction beyond float16's ten */
static const double half_unit = 1.5 * 268435456.0;         /* 1.5·2^28: the spacing of numbers here is 2^-24 */
#else
typedef uint32_t half_bits;
enum { HALF_DROPPED = 13 };
static const float half_unit = 0.75F; /* the same for float32 */
#endif

PG_FUNCTION stat pg_round_to_half(stat x) {
  const half_bits one = 1;
  half_bits bits;
  memcpy(&bits, &x, sizeof bits);
  bits += (one << (HALF_DROPPED - 1)) - 1 + ((bits >> HALF_DROPPED) & 1);
  bits &= ~((one << HALF_DROPPED) - 1);
  stat normal;
  memcpy(&normal, &bits, sizeof normal);
  const stat size = x < 0 ? -x : x, tiny = (x + (stat)half_unit) - (stat)half_unit;
  const stat infinite = x < 0 ? -(stat)INFINITY : (stat)INFINITY;
  return x != x ? x : size < (stat)0x1p-14 ? tiny : size < (stat)65520 ? normal : infinite;
}

#endif
