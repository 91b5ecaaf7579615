#ifndef PERIGEE_ROTARY_H
#define PERIGEE_ROTARY_H

#include "kernel.h"

/* rotary: rotary positions (Su et al. 2021, arXiv 2104.09864): the queries and keys of every token after the first
 * `skip` are rotated, pair by pair, by the token's angles; values, and the tokens before, stay as they are.
 *   (a, b) -> (a·cos − b·sin, a·sin + b·cos), or, inverse, (a·cos + b·sin, b·cos − a·sin), which is its gradient
 * A pair is (i, i + d/2), or (2i, 2i + 1) where they are interleaved, i < d/2.
 *   y      real [B,N,3,H,d]          =
 *   x      real [B,N,3,H,d]            packed queries, keys and values; y may be x itself, and then costs two thirds
 *   turns  stat [B,N−skip,2,d/2]       cosines, then sines; or [1,N−skip,2,d/2], the same for every image
 *   skip         class and register tokens in front
 *   interleaved  0: pairs (i, i + d/2); 1: pairs (2i, 2i + 1)
 *   inverse      0 or 1 */
PG_KERNEL(rotary, y, x, turns)
PG_INTS(rotary, skip, interleaved, inverse)

#endif
