/* Convolution of images by a bank of kernels (cross-correlation, as the field has it), without groups or dilation:
 *
 *   y[b,o,p,q] = bias[o] + Σ over c,i,j of weight[o,c,i,j] · x[b, c, p·stride + i − top, q·stride + j − left]
 *
 * x being 0 outside. With `top`, `bottom`, `left` and `right` zeros around an image of H×W, y's images are of P×Q,
 * P = ⌊(H + top + bottom − kh) / stride⌋ + 1 and Q likewise. An element's sum runs in a fixed order that the shapes
 * alone decide. No size is 0, and nothing may alias.
 *
 *   v[0] y       real [B,O,P,Q]    =
 *   v[1] x       real [B,C,H,W]
 *   v[2] weight  real [O,C,kh,kw]
 *   v[3] bias    real [O]          or absent
 *   i[0] stride, i[1] top, i[2] bottom, i[3] left, i[4] right */
PG_KERNEL(convolution)
PG_KERNEL_PLAN(convolution)

/* dx[b,c,h,w] = Σ over o,i,j with h + top = p·stride + i and w + left = q·stride + j of weight[o,c,i,j] · dy[b,o,p,q]
 *
 *   v[0] dx      real [B,C,H,W]    =
 *   v[1] dy      real [B,O,P,Q]
 *   v[2] weight  real [O,C,kh,kw]
 *   i[0..4]      as above */
PG_KERNEL(convolution_backward_input)
PG_KERNEL_PLAN(convolution_backward_input)

/* dweight[o,c,i,j] = Σ over b,p,q of dy[b,o,p,q] · x[b, c, p·stride + i − top, q·stride + j − left]
 *
 *   v[0] dweight  real [O,C,kh,kw]  =
 *   v[1] dy       real [B,O,P,Q]
 *   v[2] x        real [B,C,H,W]
 *   i[0..4]       as above */
PG_KERNEL(convolution_backward_weight)
PG_KERNEL_PLAN(convolution_backward_weight)
