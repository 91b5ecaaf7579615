/* The twins of kernels/cuda_ptx.h for the host compiler, with the register layouts that the PTX ISA documents. */
#ifndef CUDA_ON_CPU_PTX_H
#define CUDA_ON_CPU_PTX_H

#include <cstdint>
#include <cstring>

#include "cuda_runtime.h"

static inline unsigned cuda_on_cpu_bfloat16(float x) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff; /* the device has one NaN */
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

static inline unsigned pack_bfloat16(float low, float high) {
  return cuda_on_cpu_bfloat16(high) << 16 | cuda_on_cpu_bfloat16(low);
}

static inline void store_16(void *global, unsigned a, unsigned b, unsigned c, unsigned d) {
  *static_cast<uint4 *>(global) = make_uint4(a, b, c, d);
}

static inline float fast_exp2(float x) { return x < -126.0f ? 0.0f : exp2f(x); }

/* The products read nothing but what lanes gave, at fixed places: they are spared the sanitizers' checks. */
#define CUDA_ON_CPU_PLAIN __attribute__((no_sanitize("address", "undefined")))

/* A lane's operands, left with all lanes. */
struct cuda_on_cpu_fragments {
  unsigned a[4], b[2];
};

union cuda_on_cpu_word {
  unsigned bits;
  float number;
};
CUDA_ON_CPU_PLAIN static inline float cuda_on_cpu_half(unsigned pair, int high) {
  cuda_on_cpu_word w = {high ? pair & 0xffff0000u : pair << 16};
  return w.number;
}
/* All lanes' operands. */
static inline const cuda_on_cpu_slot *cuda_on_cpu_give_fragments(const unsigned a[4], const unsigned b[2]) {
  cuda_on_cpu_fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  return cuda_on_cpu_exchange(0xffffffffu, &mine, sizeof mine, "mma of depth", 16);
}
CUDA_ON_CPU_PLAIN static inline const cuda_on_cpu_fragments *cuda_on_cpu_fragments_of(const cuda_on_cpu_slot *slots,
                                                                                      int lane) {
  return reinterpret_cast<const cuda_on_cpu_fragments *>(slots[lane]);
}

CUDA_ON_CPU_PLAIN static inline void cuda_on_cpu_multiply_bfloat16(float c[4], const cuda_on_cpu_slot *slots,
                                                                   int lane) {
  int g = lane / 4, t = lane % 4;
  for (int k = 0; k < 16; k++) { /* A[.][k] and B[k][.] lie with the lanes whose t is k % 8 / 2 */
    int holder = k % 8 / 2, block = k / 8, high = k % 2;
    const cuda_on_cpu_fragments *rows = cuda_on_cpu_fragments_of(slots, g * 4 + holder);
    for (int column = 0; column < 2; column++) {
      const cuda_on_cpu_fragments *columns = cuda_on_cpu_fragments_of(slots, (2 * t + column) * 4 + holder);
      float right = cuda_on_cpu_half(columns->b[block], high);
      c[column] += cuda_on_cpu_half(rows->a[2 * block], high) * right;
      c[2 + column] += cuda_on_cpu_half(rows->a[2 * block + 1], high) * right;
    }
  }
}
static inline void mma_bfloat16(float c[4], const unsigned a[4], const unsigned b[2]) {
  cuda_on_cpu_multiply_bfloat16(c, cuda_on_cpu_give_fragments(a, b), cuda_on_cpu_current->lane);
}

/* Element [row][column] of a matrix whose rows the lanes have left: what they read when they came. */
static inline unsigned cuda_on_cpu_element(const cuda_on_cpu_slot *slots, int matrix, int row, int column) {
  uint16_t element;
  memcpy(&element, slots[matrix * 8 + row] + column * 2, sizeof element);
  return element;
}

static inline void load_matrices(unsigned out[4], const void *row) {
  cuda_on_cpu_expect_aligned(row, 16, "ldmatrix: a row");
  const cuda_on_cpu_slot *slots = cuda_on_cpu_exchange(0xffffffffu, row, 16, "ldmatrix", 4);
  int g = cuda_on_cpu_current->lane / 4, t = cuda_on_cpu_current->lane % 4;
  for (int m = 0; m < 4; m++)
    out[m] = cuda_on_cpu_element(slots, m, g, 2 * t) | cuda_on_cpu_element(slots, m, g, 2 * t + 1) << 16;
}

static inline void load_matrices_transposed(unsigned out[4], const void *row) {
  cuda_on_cpu_expect_aligned(row, 16, "ldmatrix.trans: a row");
  const cuda_on_cpu_slot *slots = cuda_on_cpu_exchange(0xffffffffu, row, 16, "ldmatrix.trans", 4);
  int g = cuda_on_cpu_current->lane / 4, t = cuda_on_cpu_current->lane % 4;
  for (int m = 0; m < 4; m++)
    out[m] = cuda_on_cpu_element(slots, m, 2 * t, g) | cuda_on_cpu_element(slots, m, 2 * t + 1, g) << 16;
}

static inline void copy_async(void *shared, const void *global, int bytes = 16) {
  cuda_on_cpu_copy_async(shared, global, static_cast<unsigned>(bytes), 16u - static_cast<unsigned>(bytes));
}
static inline void copy_commit() { cuda_on_cpu_copy_commit(); }
template <int GROUPS_LEFT> static inline void copy_wait() { cuda_on_cpu_copy_wait(GROUPS_LEFT); }

#endif
