/* Matrix multiplication with a fused epilogue, for one matrix or a batch of them.
 *
 *   product = op(A)·op(B) + bias
 *   out     = product                       activation 0
 *           = f(product)                    activation 1 to n: a kind of activation/kinds.h, of the
 *                                         product as `pre` holds it (vendor libraries: before it is rounded)
 *           = product · f'(aux)             activation n + 1 to 2n: a backward pass that goes on through f
 *
 *   v[0] out    real [batch...,M,N]   =
 *   v[1] pre    real [batch...,M,N]   = saved: the product before f; may be absent, and is for activation 0 and those above n
 *   v[2] sums   real [M]              = the sum over k of op(A); may be absent, and is for one matrix a [K,M] with transpose_a,
 *                                     N > 0, without bias, pre and activation: where a [rows,M] is the gradient of a linear
 *                                     layer's result and b its input, out is its weight's gradient and sums its bias's
 *   v[3] a      real [batch...,M,K], or [batch...,K,M] with transpose_a
 *   v[4] b      real [batch...,K,N], or [batch...,N,K] with transpose_b
 *   v[5] bias   real [N]              or absent
 *   v[6] aux    real [batch...,M,N]   for activations above n: the pre-activation at which the derivative is taken
 *   i[0] transpose_a, i[1] transpose_b, i[2] activation
 *
 * The batch dimensions of a and b broadcast to out's. Nothing may alias. An element's sum runs over k in a fixed order
 * that depends on K alone, so its bits depend neither on the number of threads nor on the rest of the matrix. */
PG_KERNEL(matmul)
PG_KERNEL_PLAN(matmul)
