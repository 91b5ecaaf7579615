/* How a launched kernel runs on the CPU: blocks one after another, the threads of a block as fibres that change places
 * only where the device's threads wait for each other. What kernels see of this is cuda_runtime.h; what the runtime's
 * part (streams, graphs) calls is cuda_on_cpu_launch's way into a queue, cuda_on_cpu_submit.
 *
 * A kernel's mistake (a barrier that not every thread reaches, a shuffle that names a lane which is gone, an overrun of
 * shared memory) ends the launch with cudaErrorLaunchFailure, and cudaGetErrorString then says what it was.
 *
 * The order in which threads run between barriers is chosen by the environment variable CUDA_ON_CPU_ORDER:
 *   greedy        a warp runs as far as it can before the next one does (default)
 *   ascending     thread 0, 1, 2, ... each as far as it can
 *   descending    the other way round, the blocks too
 *   random:SEED   any, and threads also change places at atomics */
#ifndef CUDA_ON_CPU_H
#define CUDA_ON_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "cuda_runtime_api.h"

/* What tests of the plugin call. */
#define CUDA_ON_CPU_FOR_TESTS __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* ---- work and errors: between the language's part and the runtime's ---- */

/* A piece of a queue's work; `data` is a copy of the bytes that were submitted, at a multiple of 16. */
typedef cudaError_t (*cuda_on_cpu_work)(const void *data);
/* Runs the work, or records it where the stream is being captured. */
cudaError_t cuda_on_cpu_submit(cudaStream_t stream, cuda_on_cpu_work work, const void *data, size_t bytes);
/* Makes `error` the calling thread's last error, unless it is cudaSuccess, and returns it. */
cudaError_t cuda_on_cpu_record(cudaError_t error);
/* 1 if the bytes lie in one allocation of the device's memory. */
int cuda_on_cpu_holds(const void *data, size_t bytes);
/* What went wrong in the launch that failed last. */
const char *cuda_on_cpu_message(void);

typedef enum cuda_on_cpu_order {
  CUDA_ON_CPU_GREEDY = 0,
  CUDA_ON_CPU_ASCENDING = 1,
  CUDA_ON_CPU_DESCENDING = 2,
  CUDA_ON_CPU_RANDOM = 3
} cuda_on_cpu_order;
CUDA_ON_CPU_FOR_TESTS void cuda_on_cpu_set_order(cuda_on_cpu_order order, uint64_t seed);

/* How often the host has waited for all of a queue's work, or may have: a copy from or to ordinary memory counts too. */
CUDA_ON_CPU_FOR_TESTS int64_t cuda_on_cpu_waits(void);
/* After so many kernels more, one fails; the device lives on. */
CUDA_ON_CPU_FOR_TESTS void cuda_on_cpu_fail_after(int64_t kernels);
/* Pieces of work that are queued and have not run. */
CUDA_ON_CPU_FOR_TESTS int64_t cuda_on_cpu_queued(void);

#ifdef __cplusplus
}

/* ---- the running thread ---- */

struct uint3 {
  unsigned x, y, z;
};

struct cuda_on_cpu_thread {
  uint3 index;
  int linear, lane, warp;
};
extern cuda_on_cpu_thread *cuda_on_cpu_current;

struct cuda_on_cpu_grid {
  dim3 grid, block;
  uint3 index; /* of the running block */
  size_t dynamic_bytes;
};
extern cuda_on_cpu_grid cuda_on_cpu_place;

cudaError_t cuda_on_cpu_launch(const cudaLaunchConfig_t *config, void (*body)(const void *), const void *data, size_t bytes);

/* Ends the launch; does not return. */
[[noreturn]] void cuda_on_cpu_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- meeting points; `file` and `line` are the caller's ---- */

void cuda_on_cpu_barrier(const char *file, int line);
/* Leaves `bytes` (at most 64) of every lane in `mask` with every other: result[lane] is valid until this lane's next
 * meeting. The values of lanes outside the mask are not to be read. */
enum { CUDA_ON_CPU_EXCHANGE = 64 };
typedef unsigned char cuda_on_cpu_slot[CUDA_ON_CPU_EXCHANGE];
const cuda_on_cpu_slot *cuda_on_cpu_exchange(unsigned mask, const void *mine, size_t bytes, const char *file, int line);
/* Where threads may change places in random order: at atomics. */
void cuda_on_cpu_yield();

/* ---- memory ---- */

/* The block's memory for one __shared__ variable, known by `key`; the same for all its threads, NaN at first. */
void *cuda_on_cpu_shared(const void *key, size_t bytes);
void *cuda_on_cpu_dynamic_shared();
void cuda_on_cpu_expect_aligned(const void *p, size_t alignment, const char *what);

/* cp.async: copies become visible only when waited for. `zeros` bytes follow the copied ones. */
void cuda_on_cpu_copy_async(void *to, const void *from, unsigned bytes, unsigned zeros);
void cuda_on_cpu_copy_commit();
void cuda_on_cpu_copy_wait(unsigned groups_left);
#endif

#endif
