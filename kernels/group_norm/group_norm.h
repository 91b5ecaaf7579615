#ifndef PERIGEE_GROUP_NORM_H
#define PERIGEE_GROUP_NORM_H

#include "kernel.h"

/* group_norm: normalises each image's channels in G groups of neighbouring ones, over a group's channels and all their
 * positions (Wu and He 2018, arXiv 1803.08494), and puts an activation on top in the same pass:
 *   with m the elements of a group, mean = Σ x / m,  rstd = 1 / sqrt(Σ (x − mean)² / m + epsilon),
 *   x̂ = (x − mean)·rstd,  y = f(x̂·weight_c + bias_c)
 *   y       real [B,C,..]  =
 *   mean    stat [B,G]     = saved
 *   rstd    stat [B,G]     = saved
 *   x       real [B,C,..]    y may be x itself
 *   weight  real [C]         optional: 1
 *   bias    real [C]         optional: 0
 *   groups      G, a divisor of C
 *   activation  f, one of activation/kinds.h; 0: none
 *   epsilon */
PG_KERNEL(group_norm, y, mean, rstd, x, weight, bias)
PG_INTS(group_norm, groups, activation)
PG_FLOATS(group_norm, epsilon)
PG_KERNEL_PLAN(group_norm)

/* group_norm_backward: with z = x̂·weight_c + bias_c computed again, d = dy·f'(z), and m the elements of a group,
 *   dx = rstd·(d·weight_c − Σ d·weight / m − x̂·Σ d·weight·x̂ / m),  dweight_c = Σ d·x̂,  dbias_c = Σ d
 *   dx       real [B,C,..]  =
 *   dweight  real [C]       = optional
 *   dbias    real [C]       = optional
 *   dy       real [B,C,..]    dx may be dy itself
 *   x        real [B,C,..]
 *   mean     stat [B,G]
 *   rstd     stat [B,G]
 *   weight   real [C]         optional: 1
 *   bias     real [C]         optional: 0
 *   groups, activation: as above */
PG_KERNEL(group_norm_backward, dx, dweight, dbias, dy, x, mean, rstd, weight, bias)
PG_INTS(group_norm_backward, groups, activation)
PG_KERNEL_PLAN(group_norm_backward)

#endif
