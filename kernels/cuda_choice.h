/* The means of choosing among equals on a GPU (pg_services in kernel.h): the GPU's name, for a choice's key, and times
 * that are those of a step: of a GPU that is warm, on numbers that aren't all zero. */
#ifndef PERIGEE_KERNELS_CUDA_CHOICE_H
#define PERIGEE_KERNELS_CUDA_CHOICE_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>

#include "kernel.h"

enum { PG_TIMED_RUNS = 5, PG_WARM_MILLISECONDS = 50 };

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

/* Runs anything until the GPU's clock has risen: once a process and source file. */
static void pg_warm_up(const char *what, pg_status (*run)(const void *data), const void *data) {
  static float spent;
  float milliseconds;
  while (spent < PG_WARM_MILLISECONDS && pg_milliseconds(what, run, data, &milliseconds) == PG_OK)
    spent += milliseconds * PG_TIMED_RUNS + 0.01f;
}

/* Each candidate's least milliseconds in two rounds, the second one in reverse, so that a clock that rises or falls
 * favours none; INFINITY for one that fails. Candidates are `count` structs of `bytes` each, as run() takes them. The
 * error is the last one's where all fail. */
static pg_status pg_time_candidates(const char *what, pg_status (*run)(const void *data), const void *candidates,
                                    size_t bytes, int count, float *least) {
  const char *first = candidates;
  pg_status failure = PG_OK;
  int fine = 0;
  for (int k = 0; k < count; k++) least[k] = INFINITY, pg_warm_up(what, run, first + (size_t)k * bytes);
  for (int turn = 0; turn < 2 * count; turn++) {
    const int k = turn < count ? turn : 2 * count - 1 - turn;
    if (turn >= count && least[k] == INFINITY) continue;
    float milliseconds;
    const pg_status status = pg_milliseconds(what, run, first + (size_t)k * bytes, &milliseconds);
    if (status) failure = status, least[k] = INFINITY;
    else if (milliseconds < least[k]) least[k] = milliseconds;
  }
  for (int k = 0; k < count; k++) fine += least[k] < INFINITY;
  return fine ? PG_OK : failure;
}

static int pg_least_of(const float *values, int count) {
  int best = 0;
  for (int k = 1; k < count; k++)
    if (values[k] < values[best]) best = k;
  return best;
}

/* Fills memory of the device with numbers in ±[0.5, 2), as bfloat16 and as float32, that repeat every half MiB:
 * products of zeros take less power, so they are faster, and another algorithm may be the fastest. */
static void pg_fill_randomly(void *memory, int64_t bytes) {
  enum { COUNT = 262146 };
  static uint16_t numbers[COUNT];
  uint32_t state = 1;
  for (int k = 0; k < COUNT && !numbers[COUNT - 1]; k++) {
    state = state * 1664525u + 1013904223u;
    numbers[k] = (uint16_t)((state >> 16 & 0x8000) | 0x3f00 | (state >> 20 & 0xff));
  }
  int64_t filled = bytes < (int64_t)sizeof numbers ? bytes : (int64_t)sizeof numbers;
  cudaError_t code = cudaMemcpyAsync(memory, numbers, (size_t)filled, cudaMemcpyHostToDevice, NULL);
  for (int64_t more; filled < bytes && !code; filled += more) {
    more = filled < bytes - filled ? filled : bytes - filled;
    code = cudaMemcpyAsync((char *)memory + filled, memory, (size_t)more, cudaMemcpyDeviceToDevice, NULL);
  }
  if (code) cudaGetLastError(); /* whatever is there serves too */
}

#endif
