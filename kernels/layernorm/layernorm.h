/* layernorm: normalises every row of x over its last dimension (Ba, Kiros, Hinton 2016, arXiv 1607.06450):
 *   mean = Σ_j x_j / D,  rstd = 1 / sqrt(Σ_j (x_j − mean)² / D + epsilon),  x̂ = (x − mean)·rstd,  y = x̂·weight + bias
 *   v[0] y       real [..,D]  =
 *   v[1] mean    stat [..]    = saved
 *   v[2] rstd    stat [..]    = saved
 *   v[3] x       real [..,D]    y may be x itself
 *   v[4] weight  real [D]       optional: 1
 *   v[5] bias    real [D]       optional: 0
 *   f[0] epsilon */
PG_KERNEL(layernorm)

/* layernorm_backward: with g = dy·weight and x̂ computed again from x, mean and rstd,
 *   dx = rstd·(g − Σ_j g_j / D − x̂·Σ_j g_j x̂_j / D) + dresidual,  dweight = Σ_rows dy·x̂,  dbias = Σ_rows dy
 * in one pass over memory.
 *   v[0] dx         real [..,D]  =
 *   v[1] dweight    real [D]     = optional
 *   v[2] dbias      real [D]     = optional
 *   v[3] dy         real [..,D]    dx may be dy itself
 *   v[4] x          real [..,D]
 *   v[5] mean       stat [..]
 *   v[6] rstd       stat [..]
 *   v[7] weight     real [D]       optional: 1
 *   v[8] dresidual  real [..,D]    optional: 0; what flows around the normalisation. dx may be dresidual itself */
PG_KERNEL(layernorm_backward)
PG_KERNEL_PLAN(layernorm_backward)

/* layernorm_modulate: y = x̂·(1 + scale) + shift, one shift and scale per image (DiT's adaLN, arXiv 2212.09748).
 *   v[0] y      real [B,N,D]  =
 *   v[1] mean   stat [B,N]    = saved
 *   v[2] rstd   stat [B,N]    = saved
 *   v[3] x      real [B,N,D]    y may be x itself
 *   v[4] shift  real [B,1,D]    any stride over B: a slice of [B,1,6D] need not be copied
 *   v[5] scale  real [B,1,D]    any stride over B
 *   f[0] epsilon */
PG_KERNEL(layernorm_modulate)

/* layernorm_modulate_backward: dx as in layernorm_backward with g = dy·(1 + scale),
 *   dshift = Σ_N dy,  dscale = Σ_N dy·x̂
 *   v[0] dx         real [B,N,D]  =
 *   v[1] dshift     real [B,1,D]  = optional
 *   v[2] dscale     real [B,1,D]  = optional
 *   v[3] dy         real [B,N,D]    dx may be dy itself
 *   v[4] x          real [B,N,D]
 *   v[5] mean       stat [B,N]
 *   v[6] rstd       stat [B,N]
 *   v[7] scale      real [B,1,D]    any stride over B
 *   v[8] dresidual  real [B,N,D]    optional: 0; dx may be dresidual itself */
PG_KERNEL(layernorm_modulate_backward)
PG_KERNEL_PLAN(layernorm_modulate_backward)
