#ifndef PERIGEE_CONVOLUTION_H
#define PERIGEE_CONVOLUTION_H

#include "kernel.h"

/* Convolution of images by a bank of kernels (cross-correlation, as the field has it), without groups or dilation:
 *
 *   y[b,o,p,q] = bias[o] + Σ over c,i,j of weight[o,c,i,j] · x[b, c, p·stride + i − top, q·stride + j − left]
 *
 * x being 0 outside. With `top`, `bottom`, `left` and `right` zeros around an image of H×W, y's images are of P×Q,
 * P = ⌊(H + top + bottom − kh) / stride⌋ + 1 and Q likewise. An element's sum runs in a fixed order that the shapes
 * alone decide. No size is 0, and nothing may alias.
 *
 *   y       real [B,O,P,Q]    =
 *   x       real [B,C,H,W]
 *   weight  real [O,C,kh,kw]
 *   bias    real [O]          or absent
 *   stride, top, bottom, left, right: integers, as above */
PG_KERNEL(convolution, y, x, weight, bias)
PG_INTS(convolution, stride, top, bottom, left, right)
PG_KERNEL_PLAN(convolution)

/* dx[b,c,h,w] = Σ over o,i,j with h + top = p·stride + i and w + left = q·stride + j of weight[o,c,i,j] · dy[b,o,p,q]
 *
 *   dx      real [B,C,H,W]    =
 *   dy      real [B,O,P,Q]
 *   weight  real [O,C,kh,kw]
 *   attributes as above */
PG_KERNEL(convolution_backward_input, dx, dy, weight)
PG_INTS(convolution_backward_input, stride, top, bottom, left, right)
PG_KERNEL_PLAN(convolution_backward_input)

/* dweight[o,c,i,j] = Σ over b,p,q of dy[b,o,p,q] · x[b, c, p·stride + i − top, q·stride + j − left]
 *
 *   dweight  real [O,C,kh,kw]  =
 *   dy       real [B,O,P,Q]
 *   x        real [B,C,H,W]
 *   attributes as above */
PG_KERNEL(convolution_backward_weight, dweight, dy, x)
PG_INTS(convolution_backward_weight, stride, top, bottom, left, right)
PG_KERNEL_PLAN(convolution_backward_weight)

/* Convolution by 3×3 kernels of images that are enlarged first, with a zero around them: with x̃ the images in which
 * every pixel of x is a square of enlarge × enlarge pixels,
 *
 *   y[b,o,p,q] = bias[o] + Σ over c,i,j of weight[o,c,i,j] · x̃[b, c, p + i − 1, q + j − 1]
 *
 * The CPU goes through Winograd's transforms in float32 and float64 (cpu_winograd.h): less than half the multiplications,
 * a quarter for enlarged images, and other last bits than those of `convolution`.
 *
 *   y       real [B,O,enlarge·H,enlarge·W]  =
 *   x       real [B,C,H,W]
 *   weight  real [O,C,3,3]
 *   bias    real [O]          or absent
 *   enlarge: 1 or 2 */
PG_KERNEL(convolution_3x3, y, x, weight, bias)
PG_INTS(convolution_3x3, enlarge)
PG_KERNEL_PLAN(convolution_3x3)

#endif
