#ifndef PERIGEE_ADAMW_H
#define PERIGEE_ADAMW_H

#include "kernel.h"

/* adamw: one step of AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decoupled decay, over flat buffers, with
 * clipping by the global norm, the moving average of the parameters and a working copy in lower precision, in one pass
 * over memory:
 *   g  = gradient · min(1, clip / (√square_sum + 1e-6))          (clip = 0: no clipping)
 *   m  = β1·m + (1 − β1)·g;   v = β2·v + (1 − β2)·g²
 *   p  = p·(1 − lr·decay) − lr/(1 − β1^step) · m / (√(v/(1 − β2^step)) + ε)
 *   average = average + (1 − ema)·(p − average);   working = p
 * Every view is read in its place; those marked = are written in place.
 *   parameters     real [n]  =
 *   first_moment   real [n]  =
 *   second_moment  real [n]  =
 *   average        real [n]  =, may be absent
 *   working        bfloat16 [n] =, may be absent
 *   gradient       real [n]
 *   hyper          float32 or float64 [8]: lr, β1, β2, ε, decay, clip, ema, step (from 1). In float32, 1 − β2 and
 *                       1 − ema lose digits.
 *   square_sum     stat []
 * `real` is float32 or float64; on CUDA float32. */
PG_KERNEL(adamw, parameters, first_moment, second_moment, average, working, gradient, hyper, square_sum)

#endif
