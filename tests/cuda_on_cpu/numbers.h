/* bfloat16's 16 bits as numbers, and back, to nearest even; tf32. */
#ifndef CUDA_ON_CPU_NUMBERS_H
#define CUDA_ON_CPU_NUMBERS_H

#include <cstdint>
#include <cstring>

static inline float from_bfloat16(uint16_t half) {
  uint32_t bits = static_cast<uint32_t>(half) << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint16_t to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = x != x ? 0x7fffu << 16 : bits + 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>(bits >> 16);
}

/* 10 bits of mantissa, to nearest. */
static inline float tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x1000u) & ~0x1fffu;
  memcpy(&x, &bits, sizeof x);
  return x;
}

#endif
