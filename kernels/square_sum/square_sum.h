#ifndef PERIGEE_SQUARE_SUM_H
#define PERIGEE_SQUARE_SUM_H

#include "kernel.h"

/* square_sum: Σ x², for the norm of a gradient. Chunks of a fixed size, added in a fixed order, in float64.
 *   sum  stat []   =
 *   x    real [n] */
PG_KERNEL(square_sum, sum, x)
PG_KERNEL_PLAN(square_sum)

#endif
