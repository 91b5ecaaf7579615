/* resize: images or token grids resampled from H×W to H2×W2, separably, with half-pixel centres. What is computed
 * agrees with PyTorch's interpolate(align_corners=False): bilinear; bicubic with a = −0.75 and repeated edges; and with
 * antialias, both widened by the reduction, normalised at the edges, bicubic with a = −0.5 (as Pillow).
 *   v[0] y  real  [B,C,H2,W2]   or  [B,H2·W2,..]      =
 *   v[1] x  real  [B,C,H,W]     or  [B,skip+H·W,..]     the first `skip` tokens of every sequence are left out
 *   i[0] mode        0 bilinear, 1 bicubic
 *   i[1] antialias   0 or 1
 *   i[2] tokens      0: x is [B,C,H,W]; 1: x is [B,skip+H·W,..]
 *   i[3..6]          H, W, H2, W2
 *   i[7] skip        0 for images */
PG_KERNEL(resize)
PG_KERNEL_PLAN(resize)

/* resize_backward: the transposed linear map; left-out tokens get zeros.
 *   v[0] dx  real  x's shape  =
 *   v[1] dy  real  y's shape
 *   i[0..7]  as above */
PG_KERNEL(resize_backward)
PG_KERNEL_PLAN(resize_backward)
