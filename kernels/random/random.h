#ifndef PERIGEE_RANDOM_H
#define PERIGEE_RANDOM_H

#include "kernel.h"

/* Random numbers: Philox4x32-10 (base/philox.h) with the seed as key and (index, step, purpose) as counter: what is
 * drawn depends on nothing else, neither on the number of threads nor on how a batch is cut.
 *
 *   state     int64 [3]   seed, step, first_sample
 *   purpose   a number below 2^31 that tells apart what one step draws
 *   index     (first_sample + sample)·per_sample + place, where the first dimension of y counts samples and per_sample is
 *             the product of the others: a micro-batch draws what the whole batch would draw in its place
 *   counter   low word of index/4, high word of it, step, purpose; word index mod 4 of the result (random_integers:
 *             index/2 and two words)
 *
 * The bits are the same on every device and instruction set: integers and sums and products of float32, rounded one by
 * one (no fused multiply-add), are all that is used. float64 and bfloat16 get the float32 number, bfloat16 rounded. */

/* random_uniform: multiples of 2^-24 in [0, 1) (bfloat16 may round up to 1).
 *   y       real   =
 *   state, purpose: as above */
PG_KERNEL(random_uniform, y, state)
PG_INTS(random_uniform, purpose)
/* random_normal: Box and Muller's transform of words 1 and 2 (and 3 and 4): √(-2 ln u)·cos 2πv and ·sin 2πv with
 * u = (odd 31-bit number)/2^31; no value exceeds 6.56.
 *   y       real   =
 *   state, purpose: as above */
PG_KERNEL(random_normal, y, state)
PG_INTS(random_normal, purpose)
/* random_integers: floor(r·high / 2^64) of a 64-bit r, so uneven by at most high/2^64.
 *   y       int64   =
 *   state, purpose: as above
 *   high    the numbers are 0 .. high - 1 */
PG_KERNEL(random_integers, y, state)
PG_INTS(random_integers, purpose, high)
/* random_permutation: 0 .. N-1 in random order (Fisher and Yates): from place 0 on, place k swaps with one at or after
 * it, drawn as random_integers draws index k. first_sample is not used.
 *   y       int64 [N]   =
 *   state, purpose: as above */
PG_KERNEL(random_permutation, y, state)
PG_INTS(random_permutation, purpose)

#endif
