/* Division with the quotient rounded down, shared by the binary kernels of every device. The remainder has the
 * divisor's sign, as in Lua, Python and PyTorch. */
#ifndef PERIGEE_BINARY_FUNCTIONS_H
#define PERIGEE_BINARY_FUNCTIONS_H

#include <stdint.h>

/* a - floor(a / b)·b, exact; NaN for b = 0. */
PG_FUNCTION stat floor_remainder(stat a, stat b) {
  stat rest = PG_MATH(fmod)(a, b);
  return rest != 0 && (b < 0) != (rest < 0) ? rest + b : rest;
}

/* floor(a / b) of the exact quotient, which a / b may round up to the next whole number; a / b for b = 0. */
PG_FUNCTION stat floor_quotient(stat a, stat b) {
  if (b == 0) return a / b;
  stat rest = PG_MATH(fmod)(a, b), quotient = (a - rest) / b; /* whole but for rounding */
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= 1;
  if (quotient == 0) return PG_MATH(copysign)(0, a / b);
  stat whole = PG_MATH(floor)(quotient);
  return quotient - whole > (stat)0.5 ? whole + 1 : whole;
}

/* The same of whole numbers; 0 for b = 0. b = -1 is apart since the least number has no opposite. */
PG_FUNCTION int64_t whole_remainder(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  int64_t rest = a % b;
  return rest != 0 && (b < 0) != (rest < 0) ? rest + b : rest;
}
PG_FUNCTION int64_t whole_quotient(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return (int64_t)(0 - (uint64_t)a);
  int64_t quotient = a / b;
  return a % b != 0 && (b < 0) != (a < 0) ? quotient - 1 : quotient;
}

#endif
