#ifndef PERIGEE_TIMESTEP_EMBEDDING_H
#define PERIGEE_TIMESTEP_EMBEDDING_H

#include "kernel.h"

/* timestep_embedding: sinusoids of the time at `half` = ⌊width/2⌋ frequencies (DiT, arXiv 2212.09748),
 *   y[b,k] = cos(t_b·f_k),  y[b,half+k] = sin(t_b·f_k),  f_k = max_period^(−k/half);  the last column of an odd width is 0
 *   y  real [B,width]  =
 *   t  stat [B]          as it is, not scaled
 *   max_period */
PG_KERNEL(timestep_embedding, y, t)
PG_FLOATS(timestep_embedding, max_period)

#endif
