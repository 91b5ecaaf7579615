#ifndef PERIGEE_FEATURE_ALIGNMENT_H
#define PERIGEE_FEATURE_ALIGNMENT_H

#include "kernel.h"

/* feature_alignment: loss = −mean over all rows of cos(p, z), the agreement of projected student features p with a
 * frozen teacher's features z (REPA, arXiv 2410.06940). A row x is normalised as x / max(|x|, 1e-12).
 *   loss            stat []       =
 *   inverse_norm_p  stat [B,N]    = saved, 1 / max(|p|, 1e-12)
 *   inverse_norm_z  stat [B,N]    = saved
 *   cosine          stat [B,N]    = saved
 *   p               real [B,N,Z]    any strides over B and N
 *   z               real [B,N,Z]    any strides over B and N */
PG_KERNEL(feature_alignment, loss, inverse_norm_p, inverse_norm_z, cosine, p, z)
PG_KERNEL_PLAN(feature_alignment)

/* feature_alignment_backward: dp = −coefficient/(B·N) · (z/|z| − cosine·p/|p|) / |p|, without the second term where |p|
 * was below 1e-12. The teacher gets no gradient.
 *   dp              real [B,N,Z]  =
 *   coefficient     stat []         the gradient of the loss
 *   inverse_norm_p  stat [B,N]
 *   inverse_norm_z  stat [B,N]
 *   cosine          stat [B,N]
 *   p               real [B,N,Z]    any strides over B and N; dp may be p itself where p is contiguous
 *   z               real [B,N,Z]    any strides over B and N */
PG_KERNEL(feature_alignment_backward, dp, coefficient, inverse_norm_p, inverse_norm_z, cosine, p, z)

#endif
