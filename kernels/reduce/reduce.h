#ifndef PERIGEE_REDUCE_H
#define PERIGEE_REDUCE_H

#include "kernel.h"

/* reduce: y = the sum, mean, largest or smallest over some dimensions of x.
 *   y   x's dtype; integers: a sum is int64   = ; as many elements as the dimensions of x that stay
 *   x   real, int32, int64 or uint8
 *   operation  which function: its place below
 *   mask       bit d is set if dimension d is reduced
 * Sums are partial sums of fixed pieces (of 4096 elements, or 64 rows), added in order: the same bits whatever the number
 * of threads. bfloat16 adds in float32. The largest and smallest are NaN if there is a NaN. Integers have no mean; they
 * run in the float32 instance. Of no elements the sum is 0, the mean NaN, the largest -inf, the smallest inf. */
#define PG_REDUCE(X) \
  X(sum)             \
  X(mean)            \
  X(max)             \
  X(min)
#define PG_REDUCE_NUMBER(name) PG_REDUCE_##name,
enum { PG_REDUCE(PG_REDUCE_NUMBER) PG_REDUCE_FUNCTIONS };
PG_KERNEL(reduce, y, x)
PG_INTS(reduce, operation, mask)
PG_KERNEL_PLAN(reduce)
/* argmax: the place, from 0, of the largest element along one dimension; the first one of equals, NaN above all.
 *   y   int64 [outer · inner]   =
 *   x   real [.., N, ..]
 *   dim   the dimension, from 0 */
PG_KERNEL(argmax, y, x)
PG_INTS(argmax, dim)

#endif
