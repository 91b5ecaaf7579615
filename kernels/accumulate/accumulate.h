#ifndef PERIGEE_ACCUMULATE_H
#define PERIGEE_ACCUMULATE_H

#include "kernel.h"

/* accumulate: total = first ? scale·x : total + scale·x, element by element. Sums the gradients of a batch's pieces.
 *   total  real or stat, any shape   = or +=, in place
 *   x      real, the same number of elements
 *   first  1: total's contents are not read
 *   scale */
PG_KERNEL(accumulate, total, x)
PG_INTS(accumulate, first)
PG_FLOATS(accumulate, scale)

#endif
