/* Shared by the plugin's host code: CUDA's statuses as ours. */
#ifndef PERIGEE_CUDA_PLUGIN_H
#define PERIGEE_CUDA_PLUGIN_H

#include <cuda_runtime_api.h>

#include "internal.h"

/* PG_OK, or an error that names the call and what CUDA says of it. */
pg_status pg_cuda_status(const char *call, cudaError_t code);

/* Ends the function with an error unless the call of CUDA's runtime succeeds: PG_CUDA_TRY(cudaMemGetInfo, &a, &b). */
#define PG_CUDA_TRY(function, ...) \
  do { \
    cudaError_t code_ = function(__VA_ARGS__); \
    if (code_ != cudaSuccess) return pg_cuda_status(#function, code_); \
  } while (0)

#endif
