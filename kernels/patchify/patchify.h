#ifndef PERIGEE_PATCHIFY_H
#define PERIGEE_PATCHIFY_H

#include "kernel.h"

/* patchify: an image as a sequence of square patches, row by row; a patch's elements in one of two orders.
 *   tokens  real [B,(H/p)(W/p),C·p·p]  =
 *   images  real [B,C,H,W]
 *   patch   p
 *   order   0: channel, row, column, as a patch embedding's weight [D,C,p,p]; 1: row, column, channel, as SiT's
 *           final layer writes them */
PG_KERNEL(patchify, tokens, images)
PG_INTS(patchify, patch, order)

/* unpatchify: the inverse, and the gradient, of patchify.
 *   images  real [B,C,H,W]             =
 *   tokens  real [B,(H/p)(W/p),C·p·p]
 *   patch, order: as above */
PG_KERNEL(unpatchify, images, tokens)
PG_INTS(unpatchify, patch, order)

#endif
