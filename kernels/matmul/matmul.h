#ifndef PERIGEE_MATMUL_H
#define PERIGEE_MATMUL_H

#include "kernel.h"

/* Matrix multiplication with a fused epilogue, for one matrix or a batch of them.
 *
 *   product = op(A)·op(B) + bias
 *   out     = product                       activation 0
 *           = f(product)                    activation 1 to n: a kind of activation/kinds.h, of the
 *                                         product as `pre` holds it (vendor libraries, in bfloat16: before
 *                                         it is rounded, and by a tanh that is 2^-11 off)
 *           = product · f'(aux)             activation n + 1 to 2n: a backward pass that continues through f
 *
 *   out    real [batch...,M,N]   =
 *   pre    real [batch...,M,N]   = saved: the product before f; may be absent, and is for activation 0
 *                                     and those above n
 *   sums   real [M]              = the sum over k of op(A); may be absent, and is for one matrix a [K,M]
 *                                     with transpose_a, N > 0, without bias, pre and activation: where a [rows,M] is
 *                                     the gradient of a linear layer's result and b its input, out is its weight's
 *                                     gradient and sums its bias's
 *   column_sums  real [N]        = the sum over out's rows, of all matrices; may be absent, and is for activations above
 *                                     n without bias: where out is the gradient of a linear layer's result, they are its
 *                                     bias's (vendor libraries: before out is rounded)
 *   a      real [batch...,M,K], or [batch...,K,M] with transpose_a
 *   b      real [batch...,K,N], or [batch...,N,K] with transpose_b
 *   bias   real [N]              or absent
 *   aux    real [batch...,M,N]   for activations above n: the pre-activation at which the derivative is taken
 *   transpose_a, transpose_b, activation
 *
 * The batch dimensions of a and b broadcast to out's. Nothing may alias. An element's sum runs over k in a fixed order
 * that depends on K alone, so its bits depend neither on the number of threads nor on the rest of the matrix. */
PG_KERNEL(matmul, out, pre, sums, column_sums, a, b, bias, aux)
PG_INTS(matmul, transpose_a, transpose_b, activation)
PG_KERNEL_PLAN(matmul)

#endif
