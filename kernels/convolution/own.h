/* Convolution by our own CUDA kernels (cuda.cu), with the contracts of convolution.h. cuda.c chooses between them
 * and cuDNN. */
#ifndef PERIGEE_CONVOLUTION_OWN_H
#define PERIGEE_CONVOLUTION_OWN_H

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif
/* `kernel`: one of check.h's three. */
pg_status convolution_own_cuda_float32(const pg_call *call, int kernel);
pg_status convolution_own_cuda_bfloat16(const pg_call *call, int kernel);
/* The enlarged images of a checked call of convolution_3x3, at the beginning of its scratch. */
pg_status convolution_enlarge_cuda_float32(const pg_call *call);
pg_status convolution_enlarge_cuda_bfloat16(const pg_call *call);
#ifdef __cplusplus
}
#endif

#endif
