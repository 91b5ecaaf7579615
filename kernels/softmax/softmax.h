/* softmax: y = e^(x - max x) / Σ e^(x - max x) over the last dimension.
 *   v[0] y   real [R,D]   = ; may be x
 *   v[1] x   real [R,D] */
PG_KERNEL(softmax)
/* softmax_backward: dx = y·(dy - Σ dy·y).
 *   v[0] dx   real [R,D]   = ; may be dy or y
 *   v[1] dy   real [R,D]
 *   v[2] y    real [R,D] */
PG_KERNEL(softmax_backward)
/* log_softmax: y = x - max x - ln Σ e^(x - max x) over the last dimension.
 *   v[0] y   real [R,D]   = ; may be x
 *   v[1] x   real [R,D] */
PG_KERNEL(log_softmax)
/* log_softmax_backward: dx = dy - e^y·Σ dy.
 *   v[0] dx   real [R,D]   = ; may be dy or y
 *   v[1] dy   real [R,D]
 *   v[2] y    real [R,D] */
PG_KERNEL(log_softmax_backward)
