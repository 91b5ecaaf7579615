/* Cross-entropy of logits with labels, with label smoothing s: the target of a row is 1 − s at its label plus s/C
 * everywhere, so with lse = log Σ_c exp(x_c)
 *   loss = mean over rows of lse − (1 − s)·x_label − s·(mean over c of x_c)
 *   v[0] loss     stat []      =
 *   v[1] lse      stat [R]     = saved
 *   v[2] logits   real [R,C]
 *   v[3] labels   int32 or int64 [R], from 0; one outside [0, C) is an error that names it, and on CUDA, where nobody looks
 *                 at labels before the launch, a loss and a row of dlogits that are NaN
 *   f[0] smoothing, 0 to 1 */
PG_KERNEL(cross_entropy)
PG_KERNEL_PLAN(cross_entropy)

/* dlogits = dloss/R · (softmax(logits) − target)
 *   v[0] dlogits  real [R,C]   =, may be logits
 *   v[1] dloss    stat []
 *   v[2] logits   real [R,C]
 *   v[3] labels   int32 or int64 [R]
 *   v[4] lse      stat [R]
 *   f[0] smoothing */
PG_KERNEL(cross_entropy_backward)
