#ifndef PERIGEE_GRADIENT_FORK_H
#define PERIGEE_GRADIENT_FORK_H

#include "kernel.h"

/* gradient_fork: the sum of two gradients that meet at one activation, and per sample the products that say how they
 * agree. At the aligned block's output the gradient of the denoising loss comes down from the next block and that of
 * the feature loss from the projector; their cosine is a·b / √(|a|²·|b|²). Every element is read once.
 *   sum       real [B,..]  =, a + b; may be a or b
 *   products  stat [B,3]   =, a·b, |a|² and |b|² over each sample's elements, in an order that shapes alone fix
 *   a         real [B,..]
 *   b         real [B,..] */
PG_KERNEL(gradient_fork, sum, products, a, b)
PG_KERNEL_PLAN(gradient_fork)

#endif
