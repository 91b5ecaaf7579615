#ifndef PERIGEE_PROD_H
#define PERIGEE_PROD_H

#include "kernel.h"

/* prod: y = the product over each row of x; 1 of no elements.
 *   y   real [R], or int64 where x is an integer   =
 *   x   real, int32, int64 or uint8 [R,N]
 * Reals multiply in double, integers wrap around and run in the float32 instance. */
PG_KERNEL(prod, y, x)

#endif
