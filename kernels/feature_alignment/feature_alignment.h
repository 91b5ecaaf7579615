/* feature_alignment: loss = −mean over all rows of cos(p, z), the agreement of projected student features p with a
 * frozen teacher's features z (REPA, arXiv 2410.06940). A row x is normalised as x / max(|x|, 1e-12).
 *   v[0] loss            stat []       =
 *   v[1] inverse_norm_p  stat [B,N]    = saved, 1 / max(|p|, 1e-12)
 *   v[2] inverse_norm_z  stat [B,N]    = saved
 *   v[3] cosine          stat [B,N]    = saved
 *   v[4] p               real [B,N,Z]    any strides over B and N
 *   v[5] z               real [B,N,Z]    any strides over B and N */
PG_KERNEL(feature_alignment)
PG_KERNEL_PLAN(feature_alignment)

/* feature_alignment_backward: dp = −coefficient/(B·N) · (z/|z| − cosine·p/|p|) / |p|, without the second term where |p|
 * was below 1e-12. The teacher gets no gradient.
 *   v[0] dp              real [B,N,Z]  =
 *   v[1] coefficient     stat []         the gradient of the loss
 *   v[2] inverse_norm_p  stat [B,N]
 *   v[3] inverse_norm_z  stat [B,N]
 *   v[4] cosine          stat [B,N]
 *   v[5] p               real [B,N,Z]    any strides over B and N; dp may be p itself where p is contiguous
 *   v[6] z               real [B,N,Z]    any strides over B and N */
PG_KERNEL(feature_alignment_backward)
