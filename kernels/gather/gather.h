#ifndef PERIGEE_GATHER_H
#define PERIGEE_GATHER_H

#include "kernel.h"

/* Reading and adding at indices along one dimension. The shapes agree but for the dimension `dim`, where x has K entries and
 * index J. The index may have any strides: rows are picked as a whole by an index that is expanded over the dimensions
 * after `dim`. Indices count from 0; one outside [0, K) is an error that names it. On CUDA, where nobody waits for what a
 * kernel finds, gather gives NaN there (integers: 0), and scatter_add NaN for all k of that o and i. */

/* y[o, j, i] = x[o, index[o, j, i], i]
 *   y       as x   [..., J, ...]   =
 *   x       any    [..., K, ...]
 *   index   int32 or int64 [..., J, ...], any strides
 *   dim, from 0 */
PG_KERNEL(gather, y, x, index)
PG_INTS(gather, dim)

/* y[o, k, i] = x[o, k, i] + the sum of source[o, j, i] over all j with index[o, j, i] = k, in the order of j
 *   y       real   [..., K, ...]   =, may be x
 *   x       real   [..., K, ...]   or absent: 0
 *   index   int32 or int64 [..., J, ...], any strides
 *   source  real   [..., J, ...]
 *   dim, from 0 */
PG_KERNEL(scatter_add, y, x, index, source)
PG_INTS(scatter_add, dim)
PG_KERNEL_PLAN(scatter_add)

#endif
