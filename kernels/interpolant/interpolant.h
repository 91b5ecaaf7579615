/* interpolant: the noised sample and the velocity to predict, in one pass (SiT, arXiv 2401.08740). t = 0 is data,
 * t = 1 is noise:
 *   x_t = α(t)·x0 + σ(t)·noise,  velocity = α'(t)·x0 + σ'(t)·noise
 *   linear: α = 1 − t, σ = t;  cosine: α = cos(πt/2), σ = sin(πt/2)
 *   v[0] x_t       real [B,..]  =
 *   v[1] velocity  real [B,..]  =
 *   v[2] x0        real [B,..]    x_t or velocity may be x0 or noise itself
 *   v[3] noise     real [B,..]
 *   v[4] t         stat [B]
 *   i[0] path      0 linear, 1 cosine */
PG_KERNEL(interpolant)
