/* patchify: an image as a sequence of square patches, row by row; a patch's elements in one of two orders.
 *   v[0] tokens  real [B,(H/p)(W/p),C·p·p]  =
 *   v[1] images  real [B,C,H,W]
 *   i[0] patch p
 *   i[1] order   0: channel, row, column, as a patch embedding's weight [D,C,p,p]; 1: row, column, channel, as SiT's
 *                final layer writes them */
PG_KERNEL(patchify)

/* unpatchify: the inverse, and the gradient, of patchify.
 *   v[0] images  real [B,C,H,W]             =
 *   v[1] tokens  real [B,(H/p)(W/p),C·p·p]
 *   i[0] patch, i[1] order: as above */
PG_KERNEL(unpatchify)
