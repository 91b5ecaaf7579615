#ifndef PERIGEE_POOL_H
#define PERIGEE_POOL_H

#include "kernel.h"

/* pool: one number for each window of an image: the largest element, or the mean. The window at (p, q) covers rows
 * p·stride − padding ... p·stride − padding + size − 1, and columns likewise. Places outside the image do not count,
 * in the mean's divisor neither (PyTorch: count_include_pad=False; TensorFlow's padding "SAME").
 *   y  real [B,C,P,Q]   =   P = ⌊(H + 2·padding − size) / stride⌋ + 1, Q likewise
 *   x  real [B,C,H,W]
 *   mean     0: the largest, NaN if one is; 1: the mean
 *   size, stride, padding: 2·padding <= size, so that each window covers a place of the image */
PG_KERNEL(pool, y, x)
PG_INTS(pool, mean, size, stride, padding)

/* pool_backward: each window's gradient goes to its largest element, of equal ones the first by rows, or in equal parts
 * to all.
 *   dx  real [B,C,H,W]  =
 *   dy  real [B,C,P,Q]
 *   x   real [B,C,H,W]   absent for the mean
 *   attributes as above */
PG_KERNEL(pool_backward, dx, dy, x)
PG_INTS(pool_backward, mean, size, stride, padding)

#endif
