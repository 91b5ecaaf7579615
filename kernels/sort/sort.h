#ifndef PERIGEE_SORT_H
#define PERIGEE_SORT_H

#include "kernel.h"

/* sort: each row in order, and where its elements stood. NaN is larger than all numbers; -0 equals 0; equals keep their
 * order.
 *   y       x's dtype [..,N]   =
 *   place   int64 [..,N]       = ; y[.., j] = x[.., place[.., j]]
 *   x       real, int32, int64 or uint8 [..,N]
 *   descending   1: the largest first
 * Integers run in the float32 instance. */
PG_KERNEL(sort, y, place, x)
PG_INTS(sort, descending)
PG_KERNEL_PLAN(sort)

#endif
