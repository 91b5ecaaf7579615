#ifndef PERIGEE_ATTENTION_H
#define PERIGEE_ATTENTION_H

#include "kernel.h"

/* attention: O = softmax(scale·Q·Kᵀ)·V for every image and head, in blocks of query rows: no [N,N] map exists, scratch
 * grows linearly with N. Softmax over whole rows of a block on the CPU, running along tiles of keys on CUDA (where d is at
 * most 128, but in bfloat16 with cuDNN); the bits do not depend on the number of threads. cuDNN's backward has a map in
 * bfloat16 as its scratch, where that takes no more bytes than qkv in float32 (cuda.c).
 * Source: Vaswani et al. 2017, equation 1; the row blocks and the saved log-sum-exp after Dao 2023 (FlashAttention-2).
 *   out   real [B,N,H,d]     =
 *   lse   stat [B,H,N]       = saved: natural logarithm of sum_j exp(scale·q_i·k_j)
 *   qkv   real [B,N,3,H,d]   queries, keys and values, packed as the projection writes them
 *   scale, usually 1/sqrt(d) */
PG_KERNEL(attention, out, lse, qkv)
PG_FLOATS(attention, scale)
PG_KERNEL_PLAN(attention)

/* attention_backward: the gradient of the packed queries, keys and values; the softmax is recomputed from lse.
 *   P = exp(S − lse), dP = dO·Vᵀ, dS = P∘(dP − delta), delta_i = sum(dO_i∘O_i)
 *   dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dO
 *   dqkv  real [B,N,3,H,d]   =
 *   dout  real [B,N,H,d]
 *   qkv   real [B,N,3,H,d]
 *   out   real [B,N,H,d]     of attention
 *   lse   stat [B,H,N]       of attention
 *   scale */
PG_KERNEL(attention_backward, dqkv, dout, qkv, out, lse)
PG_FLOATS(attention_backward, scale)
PG_KERNEL_PLAN(attention_backward)

#endif
