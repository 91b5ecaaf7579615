#ifndef PERIGEE_INTERPOLANT_H
#define PERIGEE_INTERPOLANT_H

#include "kernel.h"

/* interpolant: the noised sample and the velocity to predict, in one pass (SiT, arXiv 2401.08740). t = 0 is data,
 * t = 1 is noise:
 *   x_t = α(t)·x0 + σ(t)·noise,  velocity = α'(t)·x0 + σ'(t)·noise
 *   linear: α = 1 − t, σ = t;  cosine: α = cos(πt/2), σ = sin(πt/2)
 *   x_t       real [B,..]  =
 *   velocity  real [B,..]  =
 *   x0        real [B,..]    x_t or velocity may be x0 or noise itself
 *   noise     real [B,..]
 *   t         stat [B]
 *   path      0 linear, 1 cosine */
PG_KERNEL(interpolant, x_t, velocity, x0, noise, t)
PG_INTS(interpolant, path)

#endif
