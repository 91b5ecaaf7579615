#ifndef PERIGEE_CUMSUM_H
#define PERIGEE_CUMSUM_H

#include "kernel.h"

/* cumsum: y[.., j] = the sum of x[.., k] over k <= j, or over k >= j.
 *   y   real [..,N], or int64 where x is an integer   =
 *   x   real, int32, int64 or uint8 [..,N]
 *   reverse   1: from the end
 * Reals add in double, integers wrap around and run in the float32 instance. */
PG_KERNEL(cumsum, y, x)
PG_INTS(cumsum, reverse)

#endif
