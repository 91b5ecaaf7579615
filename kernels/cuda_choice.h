/* The means of choosing among equals on a GPU (pg_services in kernel.h): the GPU's name, for a choice's key, and times.
 * */
#ifndef PERIGEE_KERNELS_CUDA_CHOICE_H
#define PERIGEE_KERNELS_CUDA_CHOICE_H

#include <cuda_runtime_api.h>
#include <stdio.h>

#include "kernel.h"

enum { PG_TIMED_RUNS = 5 };

/* Returns from a function at the first failure. */
#define TRY(expression) \
  do { \
    pg_status status_ = (expression); \
    if (status_) return status_; \
  } while (0)

/* Without white space. */
static const char *pg_gpu_name(void) {
  static char name[256];
  struct cudaDeviceProp properties;
  if (!name[0] && cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    snprintf(name, sizeof name, "%s", properties.name);
    for (char *c = name; *c; c++)
      if (*c == ' ' || *c == '/') *c = '-';
  }
  return name;
}

/* Milliseconds of a few runs in a row, each queued by run(data) on the default stream, after one that is not counted.
 * */
static pg_status pg_milliseconds(const char *what, pg_status (*run)(const void *data), const void *data, float *milliseconds) {
  cudaEvent_t events[2] = {NULL, NULL};
  pg_status status = run(data);
  cudaError_t code = cudaSuccess;
  for (int k = 0; k < 2 && !code; k++) code = cudaEventCreate(&events[k]);
  if (!code) code = cudaEventRecord(events[0], NULL);
  for (int k = 0; k < PG_TIMED_RUNS && !code && !status; k++) status = run(data);
  if (!code) code = cudaEventRecord(events[1], NULL);
  if (!code) code = cudaEventSynchronize(events[1]);
  if (!code) code = cudaEventElapsedTime(milliseconds, events[0], events[1]);
  for (int k = 0; k < 2; k++)
    if (events[k]) cudaEventDestroy(events[k]);
  return status || !code ? status : pg_error(PG_ERROR_DEVICE, "timing %s: %s", what, cudaGetErrorString(code));
}

#endif
