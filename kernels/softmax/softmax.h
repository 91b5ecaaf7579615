#ifndef PERIGEE_SOFTMAX_H
#define PERIGEE_SOFTMAX_H

#include "kernel.h"

/* softmax: y = e^(x - max x) / Σ e^(x - max x) over the last dimension.
 *   y   real [R,D]   = ; may be x
 *   x   real [R,D] */
PG_KERNEL(softmax, y, x)
/* softmax_backward: dx = y·(dy - Σ dy·y).
 *   dx   real [R,D]   = ; may be dy or y
 *   dy   real [R,D]
 *   y    real [R,D] */
PG_KERNEL(softmax_backward, dx, dy, y)
/* log_softmax: y = x - max x - ln Σ e^(x - max x) over the last dimension.
 *   y   real [R,D]   = ; may be x
 *   x   real [R,D] */
PG_KERNEL(log_softmax, y, x)
/* log_softmax_backward: dx = dy - e^y·Σ dy.
 *   dx   real [R,D]   = ; may be dy or y
 *   dy   real [R,D]
 *   y    real [R,D] */
PG_KERNEL(log_softmax_backward, dx, dy, y)

#endif
