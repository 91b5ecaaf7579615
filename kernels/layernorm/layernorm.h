#ifndef PERIGEE_LAYERNORM_H
#define PERIGEE_LAYERNORM_H

#include "kernel.h"

/* layernorm: normalises every row of x over its last dimension (Ba, Kiros, Hinton 2016, arXiv 1607.06450):
 *   mean = Σ_j x_j / D,  rstd = 1 / sqrt(Σ_j (x_j − mean)² / D + epsilon),  x̂ = (x − mean)·rstd,  y = x̂·weight + bias
 *   y       real [..,D]  =
 *   mean    stat [..]    = saved
 *   rstd    stat [..]    = saved
 *   x       real [..,D]    y may be x itself
 *   weight  real [D]       optional: 1
 *   bias    real [D]       optional: 0
 *   epsilon */
PG_KERNEL(layernorm, y, mean, rstd, x, weight, bias)
PG_FLOATS(layernorm, epsilon)

/* layernorm_backward: with g = dy·weight and x̂ computed again from x, mean and rstd,
 *   dx = rstd·(g − Σ_j g_j / D − x̂·Σ_j g_j x̂_j / D) + dresidual,  dweight = Σ_rows dy·x̂,  dbias = Σ_rows dy
 * in one pass over memory.
 *   dx         real [..,D]  =
 *   dweight    real [D]     = optional
 *   dbias      real [D]     = optional
 *   dy         real [..,D]    dx may be dy itself
 *   x          real [..,D]
 *   mean       stat [..]
 *   rstd       stat [..]
 *   weight     real [D]       optional: 1
 *   dresidual  real [..,D]    optional: 0; what flows around the normalisation. dx may be dresidual itself */
PG_KERNEL(layernorm_backward, dx, dweight, dbias, dy, x, mean, rstd, weight, dresidual)
PG_KERNEL_PLAN(layernorm_backward)

/* layernorm_modulate: y = x̂·(1 + scale) + shift, one shift and scale per image (DiT's adaLN, arXiv 2212.09748).
 *   y      real [B,N,D]  =
 *   mean   stat [B,N]    = saved
 *   rstd   stat [B,N]    = saved
 *   x      real [B,N,D]    y may be x itself
 *   shift  real [B,1,D]    any stride over B: a slice of [B,1,6D] need not be copied
 *   scale  real [B,1,D]    any stride over B
 *   epsilon */
PG_KERNEL(layernorm_modulate, y, mean, rstd, x, shift, scale)
PG_FLOATS(layernorm_modulate, epsilon)

/* layernorm_modulate_backward: dx as in layernorm_backward with g = dy·(1 + scale),
 *   dshift = Σ_N dy,  dscale = Σ_N dy·x̂
 *   dx         real [B,N,D]  =
 *   dshift     real [B,1,D]  = optional
 *   dscale     real [B,1,D]  = optional
 *   dy         real [B,N,D]    dx may be dy itself
 *   x          real [B,N,D]
 *   mean       stat [B,N]
 *   rstd       stat [B,N]
 *   scale      real [B,1,D]    any stride over B
 *   dresidual  real [B,N,D]    optional: 0; dx may be dresidual itself */
PG_KERNEL(layernorm_modulate_backward, dx, dshift, dscale, dy, x, mean, rstd, scale, dresidual)
PG_KERNEL_PLAN(layernorm_modulate_backward)

#endif
