#ifndef PERIGEE_CROSS_ENTROPY_H
#define PERIGEE_CROSS_ENTROPY_H

#include "kernel.h"

/* Cross-entropy of logits with labels, with label smoothing s: the target of a row is 1 − s at its label plus s/C
 * everywhere, so with lse = log Σ_c exp(x_c)
 *   loss = mean over rows of lse − (1 − s)·x_label − s·(mean over c of x_c)
 *   loss     stat []      =
 *   lse      stat [R]     = saved
 *   logits   real [R,C]
 *   labels   int32 or int64 [R], from 0; one outside [0, C) is an error that names it, and on CUDA, where nobody looks
 *                 at labels before the launch, a loss and a row of dlogits that are NaN
 *   smoothing, 0 to 1 */
PG_KERNEL(cross_entropy, loss, lse, logits, labels)
PG_FLOATS(cross_entropy, smoothing)
PG_KERNEL_PLAN(cross_entropy)

/* dlogits = dloss/R · (softmax(logits) − target)
 *   dlogits  real [R,C]   =, may be logits
 *   dloss    stat []
 *   logits   real [R,C]
 *   labels   int32 or int64 [R]
 *   lse      stat [R]
 *   smoothing */
PG_KERNEL(cross_entropy_backward, dlogits, dloss, logits, labels, lse)
PG_FLOATS(cross_entropy_backward, smoothing)

#endif
