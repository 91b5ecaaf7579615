#ifndef PERIGEE_BINARY_H
#define PERIGEE_BINARY_H

#include "kernel.h"

/* binary: y = f(a, b), element by element, with numpy's broadcasting.
 *   y   the broadcast shape   = ; may be a or b if that has the same shape and dtype and is contiguous
 *   a   real, int32, int64 or uint8; any strides
 *   b   a's dtype; any strides
 *   operation  which function: its place below, through all three lists
 * Arithmetic: y has a's dtype. Comparisons: y is uint8, 1 or 0. Logical: a, b and y are uint8, any a ≠ 0 is true.
 * Integers run in the float32 instance. maximum and minimum are NaN where a or b is. remainder and floor_divide round
 * the quotient down (functions.h); of integers both are 0 where b is. */
#define PG_BINARY_ARITHMETIC(X)            \
  X(add, a + b)                            \
  X(sub, a - b)                            \
  X(mul, a * b)                            \
  X(div, a / b)                            \
  X(pow, PG_MATH(pow)(a, b))               \
  X(maximum, (a > b) | (a != a) ? a : b)   \
  X(minimum, (a < b) | (a != a) ? a : b)   \
  X(remainder, floor_remainder(a, b))      \
  X(floor_divide, floor_quotient(a, b))
#define PG_BINARY_COMPARISONS(X) \
  X(equal, a == b)               \
  X(not_equal, a != b)           \
  X(less, a < b)                 \
  X(less_equal, a <= b)          \
  X(greater, a > b)              \
  X(greater_equal, a >= b)
#define PG_BINARY_LOGICAL(X)             \
  X(logical_and, (a != 0) & (b != 0))    \
  X(logical_or, (a | b) != 0)

/* The arithmetic of integers; sums and products wrap around. */
#define PG_BINARY_INTEGERS(X)             \
  X(add, (uint64_t)a + (uint64_t)b)       \
  X(sub, (uint64_t)a - (uint64_t)b)       \
  X(mul, (uint64_t)a * (uint64_t)b)       \
  X(maximum, a > b ? a : b)               \
  X(minimum, a < b ? a : b)               \
  X(remainder, whole_remainder(a, b))     \
  X(floor_divide, whole_quotient(a, b))

#define PG_BINARY_NUMBER(name, expression) PG_BINARY_##name,
enum {
  PG_BINARY_ARITHMETIC(PG_BINARY_NUMBER)
  PG_BINARY_COMPARISONS(PG_BINARY_NUMBER)
  PG_BINARY_LOGICAL(PG_BINARY_NUMBER)
  PG_BINARY_FUNCTIONS
};
PG_KERNEL(binary, y, a, b)
PG_INTS(binary, operation)

#endif
