/* Includes of contracts after this one declare the entries of the plugin's table for both dtypes, for the ops whose host code
 * calls a vendor's library (<op>/cuda.c). */
#ifndef PERIGEE_KERNELS_CUDA_ENTRIES_H
#define PERIGEE_KERNELS_CUDA_ENTRIES_H

#include "kernel.h"

#define PG_KERNEL(name) \
  pg_status name##_cuda_float32(const pg_call *call); \
  pg_status name##_cuda_bfloat16(const pg_call *call);
#define PG_KERNEL_PLAN(name) \
  int64_t name##_scratch_cuda_float32(const pg_call *call); \
  int64_t name##_scratch_cuda_bfloat16(const pg_call *call);

#endif
