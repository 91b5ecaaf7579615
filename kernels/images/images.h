#ifndef PERIGEE_IMAGES_H
#define PERIGEE_IMAGES_H

#include "kernel.h"

/* images: pixels as the models take them, channels first: y = scale_c·x + offset_c.
 *   y  real  [B,C,H,W]  =
 *   x  uint8 [B,H,W,C]    C <= 4
 *   scale_1 .. scale_4, offset_1 .. offset_4: of each channel */
PG_KERNEL(images, y, x)
PG_FLOATS(images, scale_1, scale_2, scale_3, scale_4, offset_1, offset_2, offset_3, offset_4)

/* images_to_bytes: model values in [−1, 1] as pixels: y = clamp(255·(x + 1)/2, 0, 255), the fraction cut off; NaN gives 0.
 *   y  uint8 [B,H,W,C]  =
 *   x  real  [B,C,H,W] */
PG_KERNEL(images_to_bytes, y, x)

#endif
