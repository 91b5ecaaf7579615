/* Moving elements. Except for cast, the instance does not matter; any dtype.
 *
 * copy: y = x.
 *   v[0] y   =
 *   v[1] x   y's shape and dtype, any strides */
PG_KERNEL(copy)
/* cast: y = x in another dtype. Real numbers become integers by truncation towards zero, integers that do not fit take
 * the nearest value that does, NaN becomes 0. float32 instance.
 *   v[0] y   =
 *   v[1] x   y's shape, any dtype, any strides */
PG_KERNEL(cast)
/* fill: every element of y = f[0].
 *   v[0] y   = */
PG_KERNEL(fill)
/* arange: y_k = f[0] + k·f[1], computed in float64.
 *   v[0] y   [N]   = */
PG_KERNEL(arange)
/* concat: the inputs one after the other along dimension i[0].
 *   v[0] y        [.., N_1 + N_2 + .., ..]   =
 *   v[1..] x_k    [.., N_k, ..], y's dtype, any strides; up to PG_MAX_VIEWS - 1 of them, some may be absent */
PG_KERNEL(concat)
/* narrow_backward: dx = dy from place i[1] of dimension i[0] on, zero elsewhere.
 *   v[0] dx   =
 *   v[1] dy   dx's dtype; dx's shape but for dimension i[0]; any strides */
PG_KERNEL(narrow_backward)
/* flip: y = x with dimension i[0] in reverse order.
 *   v[0] y   =
 *   v[1] x   y's shape and dtype, any strides */
PG_KERNEL(flip)
