#ifndef PERIGEE_GATED_RESIDUAL_H
#define PERIGEE_GATED_RESIDUAL_H

#include "kernel.h"

/* gated_residual: out = x + gate·y: a block's residual connection, the branch scaled per image and channel (DiT's
 * adaLN-zero) or, with one gate for all images, per channel (LayerScale, arXiv 2103.17239).
 *   out   real [B,N,D]           =
 *   x     real [B,N,D]             out may be x or y itself
 *   y     real [B,N,D]
 *   gate  real [B,1,D] or [1,1,D]  any stride over B */
PG_KERNEL(gated_residual, out, x, y, gate)

/* gated_residual_backward: dy = gate·dout, dgate = Σ dout·y over N (and B where the gate is [1,1,D]); dx is dout.
 *   dy     real [B,N,D]            =
 *   dgate  real, gate's shape      = optional
 *   dbias  real [D]                = optional: Σ dy over B and N, before dy is rounded; where y is what a linear layer
 *                                    gave, its bias's gradient
 *   dout   real [B,N,D]              dy may be y itself
 *   y      real [B,N,D]              read only for dgate
 *   gate   real [B,1,D] or [1,1,D]   any stride over B */
PG_KERNEL(gated_residual_backward, dy, dgate, dbias, dout, y, gate)
PG_KERNEL_PLAN(gated_residual_backward)

#endif
