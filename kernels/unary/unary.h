#ifndef PERIGEE_UNARY_H
#define PERIGEE_UNARY_H

#include "kernel.h"

/* unary: y = f(x), element by element.
 *   y   real, or int32, int64, uint8 where listed   = ; may be x
 *   x   the same dtype and shape; any strides (where y is x: contiguous)
 *   operation  which function: its place below
 *   a, b       its constants
 * Integers run in the float32 instance. */
#define PG_UNARY(X)                            \
  X(neg, -x)                                   \
  X(abs, PG_MATH(fabs)(x))                     \
  X(exp, pg_exp(x))                            \
  X(log, pg_log(x))                            \
  X(sqrt, PG_MATH(sqrt)(x))                    \
  X(rsqrt, 1 / PG_MATH(sqrt)(x))               \
  X(square, x * x)                             \
  X(sin, PG_MATH(sin)(x))                      \
  X(cos, PG_MATH(cos)(x))                      \
  X(tanh, pg_tanh(x))                          \
  X(sigmoid, pg_sigmoid(x))                    \
  X(relu, x < 0 ? 0 : x)                       \
  X(erf, pg_erf(x))                            \
  X(floor, PG_MATH(floor)(x))                  \
  X(round, PG_MATH(rint)(x)) /* ties to even */ \
  X(sign, x > 0 ? 1 : x < 0 ? -1 : x)          \
  X(reciprocal, 1 / x)                         \
  X(affine, a * x + b)                         \
  X(clamp, PG_LIMITED(x, a, b))                \
  X(power, PG_MATH(pow)(x, a))                 \
  X(atan, PG_MATH(atan)(x))                    \
  X(round_to_half, pg_round_to_half(x)) /* half.h */
#define PG_LIMITED(x, low, high) ((x) < (low) ? (low) : (x) > (high) ? (high) : (x))

/* Those of integers, in unsigned arithmetic, which wraps around. */
#define PG_UNARY_INTEGERS(X)                               \
  X(neg, 0 - (uint64_t)x)                                  \
  X(abs, (int64_t)x < 0 ? 0 - (uint64_t)x : (uint64_t)x)   \
  X(square, (uint64_t)x * (uint64_t)x)                     \
  X(sign, (x > 0) - ((int64_t)x < 0))                      \
  X(affine, (uint64_t)a * (uint64_t)x + (uint64_t)b)       \
  X(clamp, PG_LIMITED(x, a, b))

#define PG_UNARY_NUMBER(name, expression) PG_UNARY_##name,
enum { PG_UNARY(PG_UNARY_NUMBER) PG_UNARY_FUNCTIONS };
PG_KERNEL(unary, y, x)
PG_INTS(unary, operation)
PG_FLOATS(unary, a, b)

#endif
