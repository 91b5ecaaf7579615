#ifndef PERIGEE_WHERE_H
#define PERIGEE_WHERE_H

#include "kernel.h"

/* where: y = condition ≠ 0 ? a : b, element by element, with numpy's broadcasting.
 *   y          any dtype, the broadcast shape   = ; may be a or b if that has the same shape and is contiguous
 *   condition  uint8, any strides
 *   a          y's dtype, any strides
 *   b          y's dtype, any strides
 * The instance does not matter. */
PG_KERNEL(where, y, condition, a, b)

#endif
