/* images: pixels as the models take them, channels first: y = scale_c·x + offset_c.
 *   v[0] y  real  [B,C,H,W]  =
 *   v[1] x  uint8 [B,H,W,C]    C <= 4
 *   f[0..3] scale of each channel, f[4..7] its offset */
PG_KERNEL(images)

/* images_to_bytes: model values in [−1, 1] as pixels: y = clamp(255·(x + 1)/2, 0, 255), the fraction cut off; NaN gives 0.
 *   v[0] y  uint8 [B,H,W,C]  =
 *   v[1] x  real  [B,C,H,W] */
PG_KERNEL(images_to_bytes)
