/* attention: O = softmax(scale·Q·Kᵀ)·V for every image and head, in blocks of query rows: no [N,N] map exists, scratch
 * grows linearly with N. Softmax over whole rows of a block on the CPU, running along tiles of keys on CUDA (where d is at
 * most 128, but in bfloat16 with cuDNN); the bits do not depend on the number of threads. cuDNN's backward has a map in
 * bfloat16 as its scratch, where that takes no more bytes than qkv in float32 (cuda.c).
 * Source: Vaswani et al. 2017, equation 1; the row blocks and the saved log-sum-exp after Dao 2023 (FlashAttention-2).
 *   v[0] out   real [B,N,H,d]     =
 *   v[1] lse   stat [B,H,N]       = saved: natural logarithm of sum_j exp(scale·q_i·k_j)
 *   v[2] qkv   real [B,N,3,H,d]   queries, keys and values, packed as the projection writes them
 *   f[0] scale, usually 1/sqrt(d) */
PG_KERNEL(attention)
PG_KERNEL_PLAN(attention)

/* attention_backward: the gradient of the packed queries, keys and values; the softmax is recomputed from lse.
 *   P = exp(S − lse), dP = dO·Vᵀ, dS = P∘(dP − delta), delta_i = sum(dO_i∘O_i)
 *   dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dO
 *   v[0] dqkv  real [B,N,3,H,d]   =
 *   v[1] dout  real [B,N,H,d]
 *   v[2] qkv   real [B,N,3,H,d]
 *   v[3] out   real [B,N,H,d]     of attention
 *   v[4] lse   stat [B,H,N]       of attention
 *   f[0] scale */
PG_KERNEL(attention_backward)
PG_KERNEL_PLAN(attention_backward)
