/* Two words to two normal numbers, with float32 sums and products only, each rounded by itself: whoever includes this
 * compiles it without fused multiply-add (gcc: -ffp-contract=off, nvcc: -fmad=false). Polynomials are minimax fits. */
#ifndef PERIGEE_KERNELS_NORMAL_H
#define PERIGEE_KERNELS_NORMAL_H

#include "philox.h"

PG_PHILOX_INLINE float pg_normal_from_bits(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } u = {bits};
  return u.value;
}

PG_PHILOX_INLINE uint32_t pg_normal_bits(float value) {
  union {
    float value;
    uint32_t bits;
  } u = {value};
  return u.bits;
}

/* √(-2 ln(u/2^31)), u = word/2 made odd. u = 2^e·(1 + f), 1 + f in [√½, √2); ln(1 + f) = f - f²/2 + f³·P(f). */
PG_PHILOX_INLINE float pg_normal_radius(uint32_t word) {
  float u = (float)(int32_t)((word >> 1) | 1);
  uint32_t bits = pg_normal_bits(u);
  int32_t e = ((int32_t)(bits - 0x3f3504f3u)) >> 23;
  float f = pg_normal_from_bits(bits - ((uint32_t)e << 23)) - 1.0f;
  float p = -7.63442963e-2f;
  p = p * f + 1.27615497e-1f;
  p = p * f - 1.31601945e-1f;
  p = p * f + 1.42017618e-1f;
  p = p * f - 1.66233569e-1f;
  p = p * f + 2.00012267e-1f;
  p = p * f - 2.50008225e-1f;
  p = p * f + 3.33333313e-1f;
  float square = f * f;
  float logarithm = (float)(e - 31) * 0.693147182f + (f - (0.5f * square - square * f * p));
  float twice = -2.0f * logarithm;
  return sqrtf(twice > 0.0f ? twice : 0.0f);
}

/* cos and sin of 2π·word/2^32: the nearest quarter turn q and the rest t in [-1/8, 1/8], exactly. */
PG_PHILOX_INLINE void pg_normal_direction(uint32_t word, float *cosine, float *sine) {
  uint32_t q = (word + 0x20000000u) >> 30;
  float t = (float)(int32_t)(word - (q << 30)) * 2.32830644e-10f; /* 2^-32 */
  float s = t * t;
  float odd = ((-75.3935623f * s + 81.5923538f) * s - 41.3416634f) * s + 6.28318548f;
  float even = ((59.2292404f * s - 85.4432373f) * s + 64.9393234f) * s - 19.7392082f;
  float sin_t = t * odd, cos_t = 1.0f + s * even;
  float c = q & 1 ? sin_t : cos_t, n = q & 1 ? cos_t : sin_t;
  *cosine = (q + 1) & 2 ? -c : c;
  *sine = q & 2 ? -n : n;
}

#endif
