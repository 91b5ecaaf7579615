/* Stands for the CUDA runtime: the part that kernels' host code calls. Queues run their work at once. */
#include "cuda_on_cpu.h"
#include "shared.h"

static thread_local cudaError_t last_error = cudaSuccess;

cudaError_t cuda_on_cpu_record(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t cuda_on_cpu_submit(cudaStream_t, cuda_on_cpu_work work, const void *data, size_t) { return work(data); }

cudaError_t cudaPeekAtLastError(void) { return last_error; }

cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorLaunchFailure: return cuda_on_cpu_message();
  }
  return "unrecognized error code";
}

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute attribute, int value) {
  bool fits = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value >= 0 &&
              static_cast<size_t>(value) <= shared_most_dynamic;
  return cuda_on_cpu_record(fits ? cudaSuccess : cudaErrorInvalidValue);
}
