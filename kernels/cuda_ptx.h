/* The instructions that CUDA C++ has no function for, from the PTX ISA: sm_80 and later. Each has a twin for the host
 * compiler in tests/cuda_on_cpu/include/cuda_on_cpu_ptx.h, which implements the layouts that are described here.
 *
 * Fragments: with g = lane / 4 and t = lane % 4, a lane's registers of the 16×8 result C are
 *   c[0], c[1] = C[g][2t], C[g][2t+1]        c[2], c[3] = C[g+8][2t], C[g+8][2t+1] */
#ifndef PERIGEE_KERNELS_CUDA_PTX_H
#define PERIGEE_KERNELS_CUDA_PTX_H

#include <stdint.h>

/* Two floats as bfloat16, rounded to nearest even; `low` in the word's lower half. */
static __device__ __forceinline__ unsigned pack_bfloat16(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/* 16 bytes to global memory at a multiple of 16, in one access: nvcc splits some stores of a uint4 into four. */
static __device__ __forceinline__ void store_16(void *global, unsigned a, unsigned b, unsigned c, unsigned d) {
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" : : "l"(global), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

/* 2^x to 22 bits; 0 where the result would be subnormal. */
static __device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* C += A·B with A 16×16 and B 16×8 in bfloat16, two in a register, the one with the lower index in the lower half:
 *   a[0] = A[g][2t..]   a[1] = A[g+8][2t..]   a[2] = A[g][2t+8..]   a[3] = A[g+8][2t+8..]
 *   b[0] = B[2t..][g]   b[1] = B[2t+8..][g] */
static __device__ __forceinline__ void mma_bfloat16(float c[4], const unsigned a[4], const unsigned b[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8×8 matrices of 16-bit elements from shared memory. Lane l gives the address of row l % 8 of matrix l / 8, a
 * multiple of 16; register m is matrix m's elements [g][2t] (lower half) and [g][2t+1]. */
static __device__ __forceinline__ void load_matrices(unsigned out[4], const void *row) {
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

/* The same, transposed: register m is matrix m's elements [2t][g] and [2t+1][g]. */
static __device__ __forceinline__ void load_matrices_transposed(unsigned out[4], const void *row) {
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

/* 16 bytes from global to shared memory, past the registers: there when a copy_wait() after the next copy_commit() has
 * returned, and for other threads after a barrier behind that. Only the first `bytes` are read, zeros follow them. */
static __device__ __forceinline__ void copy_async(void *shared, const void *global, int bytes = 16) {
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(address), "l"(global), "r"(bytes) : "memory");
}

/* Ends a group of copies. */
static __device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

/* Waits until at most `GROUPS_LEFT` of this thread's groups are under way. */
template <int GROUPS_LEFT>
static __device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(GROUPS_LEFT) : "memory");
}

#endif
