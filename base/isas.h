/* The instruction sets that the CPU's kernels are compiled for on x86, each a part of the next: what PERIGEE_ISA calls one,
 * its name, what it is, and the processor's flag that tells it from the one before (runtime/device.c looks closer).
 * CMake and Lua read these lines. */
#ifndef PERIGEE_ISAS_H
#define PERIGEE_ISAS_H

#define PG_ALL_ISAS(X)                                     \
  X(baseline, "baseline", "plain C for any processor")     \
  X(v3, "x86-64-v3", "AVX2", avx2)                         \
  X(v4, "x86-64-v4", "AVX-512", avx512bw)                  \
  X(v4_bf16, "x86-64-v4 + bf16", "AVX-512 with its bfloat16 instructions", avx512_bf16)

#define PG_ISA_NUMBER(name, ...) PG_ISA_##name,
enum { PG_ALL_ISAS(PG_ISA_NUMBER) PG_ISAS };

#endif
