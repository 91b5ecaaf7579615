#ifndef PERIGEE_ACTIVATION_H
#define PERIGEE_ACTIVATION_H

#include "kernel.h"

/* Activation functions, element by element. `kind` is one of kinds.h. */

/* y = f(x)
 *   y      real [...]   =, may be x
 *   x      real [...]
 *   kind */
PG_KERNEL(activation, y, x)
PG_INTS(activation, kind)

/* dx = dy·f'(x)
 *   dx     real [...]   =, may be dy
 *   dy     real [...]
 *   x      real [...]
 *   kind */
PG_KERNEL(activation_backward, dx, dy, x)
PG_INTS(activation_backward, kind)

#endif
