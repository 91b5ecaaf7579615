/* Reading and adding at indices along one dimension. The shapes agree but for the dimension `dim`, where x has K entries and
 * index J. The index may have any strides: rows are picked as a whole by an index that is expanded over the dimensions
 * after `dim`. Indices count from 0; one outside [0, K) is an error that names it. On CUDA, where nobody waits for what a
 * kernel finds, gather gives NaN there (integers: 0), and scatter_add NaN for all k of that o and i. */

/* out[o, j, i] = x[o, index[o, j, i], i]
 *   v[0] out     as x   [..., J, ...]   =
 *   v[1] x       any    [..., K, ...]
 *   v[2] index   int32 or int64 [..., J, ...], any strides
 *   i[0] dim, from 0 */
PG_KERNEL(gather)

/* out[o, k, i] = x[o, k, i] + the sum of source[o, j, i] over all j with index[o, j, i] = k, in the order of j
 *   v[0] out     real   [..., K, ...]   =, may be x
 *   v[1] x       real   [..., K, ...]   or absent: 0
 *   v[2] index   int32 or int64 [..., J, ...], any strides
 *   v[3] source  real   [..., J, ...]
 *   i[0] dim, from 0 */
PG_KERNEL(scatter_add)
PG_KERNEL_PLAN(scatter_add)
