#ifndef PERIGEE_COPY_H
#define PERIGEE_COPY_H

#include "kernel.h"

/* Moving elements. Except for cast, the instance does not matter; any dtype.
 *
 * copy: y = x.
 *   y   =
 *   x   y's shape and dtype, any strides */
PG_KERNEL(copy, y, x)
/* cast: y = x in another dtype. Real numbers become integers by truncation towards zero, integers that do not fit take
 * the nearest value that does, NaN becomes 0. float32 instance.
 *   y   =
 *   x   y's shape, any dtype, any strides */
PG_KERNEL(cast, y, x)
/* fill: every element of y = value.
 *   y   = */
PG_KERNEL(fill, y)
PG_FLOATS(fill, value)
/* arange: y_k = start + k·step, computed in float64.
 *   y   [N]   = */
PG_KERNEL(arange, y)
PG_FLOATS(arange, start, step)
/* concat: the inputs one after the other along dimension `dim`, from 0.
 *   y        [.., N_1 + N_2 + .., ..]   =
 *   x1 ..  [.., N_k, ..], y's dtype, any strides; some may be absent */
PG_KERNEL(concat, y, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15)
PG_INTS(concat, dim)
/* narrow_backward: dx = dy from place `start` of dimension `dim` on, both from 0, zero elsewhere.
 *   dx   =
 *   dy   dx's dtype; dx's shape but for dimension `dim`; any strides */
PG_KERNEL(narrow_backward, dx, dy)
PG_INTS(narrow_backward, dim, start)
/* flip: y = x with dimension `dim`, from 0, in reverse order.
 *   y   =
 *   x   y's shape and dtype, any strides */
PG_KERNEL(flip, y, x)
PG_INTS(flip, dim)

#endif
