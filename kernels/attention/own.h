/* Attention by our own CUDA kernels (cuda.cu), with the contracts of attention.h. cuda.c chooses between them and cuDNN. */
#ifndef PERIGEE_ATTENTION_OWN_H
#define PERIGEE_ATTENTION_OWN_H

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif
pg_status attention_own_cuda_float32(const pg_call *call);
pg_status attention_own_cuda_bfloat16(const pg_call *call);
pg_status attention_own_backward_cuda_float32(const pg_call *call);
pg_status attention_own_backward_cuda_bfloat16(const pg_call *call);
int64_t attention_own_backward_scratch_cuda_float32(const pg_call *call);
int64_t attention_own_backward_scratch_cuda_bfloat16(const pg_call *call);
#ifdef __cplusplus
}
#endif

#endif
