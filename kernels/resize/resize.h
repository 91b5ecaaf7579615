#ifndef PERIGEE_RESIZE_H
#define PERIGEE_RESIZE_H

#include "kernel.h"

/* resize: images or token grids resampled from H×W to H2×W2, separably, with half-pixel centres. What is computed
 * agrees with PyTorch's interpolate(align_corners=False): bilinear; bicubic with a = −0.75 and repeated edges; and with
 * antialias, both widened by the reduction, normalised at the edges, bicubic with a = −0.5 (as Pillow).
 *   y  real  [B,C,H2,W2]   or  [B,H2·W2,..]      =
 *   x  real  [B,C,H,W]     or  [B,skip+H·W,..]     the first `skip` tokens of every sequence are left out
 *   mode       0 bilinear, 1 bicubic
 *   antialias  0 or 1
 *   corner     1: output i lies at i·H/H2, without half-pixel centres (TensorFlow's first
 *              resize_bilinear, whose places are float32); no antialias
 *   tokens     0: x is [B,C,H,W]; 1: x is [B,skip+H·W,..]
 *   height, width, to_height, to_width: H, W, H2, W2
 *   skip       0 for images */
PG_KERNEL(resize, y, x)
PG_INTS(resize, mode, antialias, corner, tokens, height, width, to_height, to_width, skip)
PG_KERNEL_PLAN(resize)

/* resize_backward: the transposed linear map; left-out tokens get zeros.
 *   dx  real  x's shape  =
 *   dy  real  y's shape
 *   attributes as above */
PG_KERNEL(resize_backward, dx, dy)
PG_INTS(resize_backward, mode, antialias, corner, tokens, height, width, to_height, to_width, skip)
PG_KERNEL_PLAN(resize_backward)

#endif
