/* gated_residual: out = x + gate·y: a block's residual connection, the branch scaled per image and channel (DiT's
 * adaLN-zero) or, with one gate for all images, per channel (LayerScale, arXiv 2103.17239).
 *   v[0] out   real [B,N,D]           =
 *   v[1] x     real [B,N,D]             out may be x or y itself
 *   v[2] y     real [B,N,D]
 *   v[3] gate  real [B,1,D] or [1,1,D]  any stride over B */
PG_KERNEL(gated_residual)

/* gated_residual_backward: dy = gate·dout, dgate = Σ dout·y over N (and B where the gate is [1,1,D]); dx is dout.
 *   v[0] dy     real [B,N,D]            =
 *   v[1] dgate  real, gate's shape      = optional
 *   v[2] dout   real [B,N,D]              dy may be y itself
 *   v[3] y      real [B,N,D]              read only for dgate
 *   v[4] gate   real [B,1,D] or [1,1,D]   any stride over B */
PG_KERNEL(gated_residual_backward)
PG_KERNEL_PLAN(gated_residual_backward)
