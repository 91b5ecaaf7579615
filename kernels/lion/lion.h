#ifndef PERIGEE_LION_H
#define PERIGEE_LION_H

#include "kernel.h"

/* lion: one step of Lion (Chen et al. 2023, arXiv 2302.06675) over flat buffers, with clipping by the global norm, the
 * moving average of the parameters and a working copy in lower precision, in one pass over memory:
 *   g  = gradient · min(1, clip / (√square_sum + 1e-6))          (clip = 0: no clipping)
 *   p  = p·(1 − lr·decay) − lr · sign(β1·m + (1 − β1)·g)          (sign of 0: 0)
 *   m  = β2·m + (1 − β2)·g
 *   average = average + (1 − ema)·(p − average);   working = p
 * Every view is read in its place; those marked = are written in place.
 *   parameters  real [n]  =
 *   moment      real [n]  =
 *   average     real [n]  =, may be absent
 *   working     bfloat16 [n] =, may be absent
 *   gradient    real [n]
 *   hyper       float32 or float64 [6]: lr, β1, β2, decay, clip, ema
 *   square_sum  stat []
 * `real` is float32 or float64; on CUDA float32. */
PG_KERNEL(lion, parameters, moment, average, working, gradient, hyper, square_sum)

#endif
