/* Shared by the CPU's kernels. The build compiles each kernels/<op>/cpu.c once per instruction set and dtype with
 *
 *   PG_SUFFIX   _<isa>_<dtype>, pasted to every kernel's name by PG_CPU()
 *   PG_REAL     PG_FLOAT32 (0), PG_FLOAT64 (1) or PG_BFLOAT16 (2)
 *
 * and this header turns the latter into types:
 *
 *   real   how `real` views are stored: float, double, or bfloat16's 16 bits
 *   stat   what is computed in, and how `stat` views are stored: float or double
 *   load(x), store(x)   real -> stat, stat -> real (rounding to nearest even)
 *
 * Rules that keep the bits the same for any number of threads: parallel loops over rows or fixed tiles; sums across
 * rows in fixed chunks (PG_CHUNK_ROWS), partial sums in scratch, added in order; never OpenMP's `reduction` across
 * threads (`omp simd reduction` inside a row is fixed within one build). Every parallel loop is
 * `#pragma omp parallel for schedule(static)` unless pieces are uneven. */
#ifndef PERIGEE_KERNELS_CPU_H
#define PERIGEE_KERNELS_CPU_H

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "kernel.h"

#define PG_CPU(name) PG_INSTANCE(name)

/* Functions that the CUDA kernels share (cuda.h). */
#define PG_FUNCTION static inline __attribute__((always_inline))

enum { PG_CHUNK_ROWS = 64 };

/* Threads of a parallel loop. They do not change during a program's life, so scratch sizes may depend on them. */
static inline int pg_kernel_threads(void) { return omp_get_max_threads(); }

#if PG_REAL == 0
typedef float real;
typedef float stat;
#define PG_STAT PG_FLOAT32
static inline stat load(real x) { return x; }
static inline real store(stat x) { return x; }
#elif PG_REAL == 1
typedef double real;
typedef double stat;
#define PG_STAT PG_FLOAT64
static inline stat load(real x) { return x; }
static inline real store(stat x) { return x; }
#else
typedef uint16_t real;
typedef float stat;
#define PG_STAT PG_FLOAT32
static inline stat load(real x) { return pg_from_bfloat16(x); }
static inline real store(stat x) { return pg_to_bfloat16(x); }
#endif

#include "cpu_math.h"

#endif
