/* The CUDA device: memory, copies, streams, events and graphs of one GPU, as the runtime's tables (internal.h) ask for
 * them. Everything it knows of CUDA is the runtime library; kernels lie in the same plugin. */
#include "cuda.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { LEAST_CAPABILITY = 80 }; /* of the kernels: conversions to bfloat16, asynchronous copies */

pg_status pg_cuda_status(const char *call, cudaError_t code) {
  if (code == cudaSuccess) return PG_OK;
  cudaGetLastError(); /* what is reported here is not to come up again */
  pg_error(code == cudaErrorMemoryAllocation ? PG_ERROR_MEMORY : PG_ERROR_DEVICE, "cuda: %s: %s (%s)", call,
           cudaGetErrorString(code), cudaGetErrorName(code));
  return code == cudaErrorMemoryAllocation ? PG_ERROR_MEMORY : PG_ERROR_DEVICE;
}

static pg_device_ops device;
static pg_queue_ops queues;
static cudaStream_t streams[PG_QUEUES];

/* ---- small writes: a ring of page-locked cells, so that a scalar's new value needs no wait ---- */

enum { CELLS = 64, CELL_BYTES = 4096 };

static struct {
  char *memory;
  cudaEvent_t read[CELLS]; /* the cell's last copy is done */
  int next;
  pthread_mutex_t mutex;
} ring = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static pg_status ring_new(void) {
  PG_CUDA_TRY(cudaMallocHost, (void **)&ring.memory, CELLS * CELL_BYTES);
  for (int k = 0; k < CELLS; k++) PG_CUDA_TRY(cudaEventCreateWithFlags, &ring.read[k], cudaEventDisableTiming);
  return PG_OK;
}

static pg_status ring_put(void *to, const void *host, int64_t bytes) {
  int k = ring.next;
  ring.next = (k + 1) % CELLS;
  char *cell = ring.memory + (size_t)k * CELL_BYTES;
  PG_CUDA_TRY(cudaEventSynchronize, ring.read[k]);
  memcpy(cell, host, (size_t)bytes);
  PG_CUDA_TRY(cudaMemcpyAsync, to, cell, (size_t)bytes, cudaMemcpyHostToDevice, streams[PG_QUEUE_COMPUTE]);
  PG_CUDA_TRY(cudaEventRecord, ring.read[k], streams[PG_QUEUE_COMPUTE]);
  return PG_OK;
}

/* ---- memory and copies ---- */

static pg_status allocate(void **out, int64_t bytes) {
  PG_CUDA_TRY(cudaMalloc, out, (size_t)bytes);
  return PG_OK;
}

static void release(void *data) {
  if (cudaFree(data) != cudaSuccess) cudaGetLastError(); /* after a failed kernel every call fails */
}

static pg_status from_host(void *to, const void *host, int64_t bytes) {
  if (bytes <= CELL_BYTES) {
    pthread_mutex_lock(&ring.mutex);
    pg_status status = bytes ? ring_put(to, host, bytes) : PG_OK;
    pthread_mutex_unlock(&ring.mutex);
    return status;
  }
  PG_CUDA_TRY(cudaMemcpyAsync, to, host, (size_t)bytes, cudaMemcpyHostToDevice, streams[PG_QUEUE_COMPUTE]);
  PG_CUDA_TRY(cudaStreamSynchronize, streams[PG_QUEUE_COMPUTE]);
  return PG_OK;
}

static pg_status to_host(void *host, const void *from, int64_t bytes) {
  if (bytes) PG_CUDA_TRY(cudaMemcpyAsync, host, from, (size_t)bytes, cudaMemcpyDeviceToHost, streams[PG_QUEUE_COMPUTE]);
  PG_CUDA_TRY(cudaStreamSynchronize, streams[PG_QUEUE_COMPUTE]);
  return PG_OK;
}

static pg_status within(void *to, const void *from, int64_t bytes) {
  if (bytes) PG_CUDA_TRY(cudaMemcpyAsync, to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, streams[PG_QUEUE_COMPUTE]);
  return PG_OK;
}

static pg_status memory(int64_t *free_bytes, int64_t *total_bytes) {
  size_t unused, total;
  PG_CUDA_TRY(cudaMemGetInfo, &unused, &total);
  *free_bytes = (int64_t)unused;
  *total_bytes = (int64_t)total;
  return PG_OK;
}

/* ---- queues and events ---- */

static pg_status pin(void **out, int64_t bytes) {
  PG_CUDA_TRY(cudaMallocHost, out, (size_t)(bytes ? bytes : 1));
  return PG_OK;
}

static void unpin(void *data) { cudaFreeHost(data); }

static pg_status copy(int queue, void *to, const void *from, int64_t bytes) {
  if (bytes) PG_CUDA_TRY(cudaMemcpyAsync, to, from, (size_t)bytes, cudaMemcpyDefault, streams[queue]);
  return PG_OK;
}

static pg_status event_new(void **out) {
  PG_CUDA_TRY(cudaEventCreate, (cudaEvent_t *)out);
  return PG_OK;
}

static void event_free(void *event) { cudaEventDestroy(event); }

static pg_status event_record(void *event, int queue) {
  PG_CUDA_TRY(cudaEventRecord, event, streams[queue]);
  return PG_OK;
}

static pg_status event_wait(void *event) {
  PG_CUDA_TRY(cudaEventSynchronize, event);
  return PG_OK;
}

static pg_status queue_wait(int queue, void *event) {
  PG_CUDA_TRY(cudaStreamWaitEvent, streams[queue], event, 0);
  return PG_OK;
}

static pg_status event_seconds(void *from, void *to, double *seconds) {
  float milliseconds;
  PG_CUDA_TRY(cudaEventElapsedTime, &milliseconds, from, to);
  *seconds = 1e-3 * (double)milliseconds;
  return PG_OK;
}

static pg_status synchronise(void) {
  PG_CUDA_TRY(cudaDeviceSynchronize);
  return PG_OK;
}

/* ---- graphs ---- */

/* Other threads (a loader's) may keep calling CUDA while this one captures. */
static pg_status capture_begin(void) {
  PG_CUDA_TRY(cudaStreamBeginCapture, streams[PG_QUEUE_COMPUTE], cudaStreamCaptureModeThreadLocal);
  return PG_OK;
}

static pg_status capture_end(void **out) {
  cudaGraph_t graph = NULL;
  cudaError_t code = cudaStreamEndCapture(streams[PG_QUEUE_COMPUTE], &graph);
  if (code == cudaSuccess && out) {
    code = cudaGraphInstantiate((cudaGraphExec_t *)out, graph, 0);
    if (code != cudaSuccess) *out = NULL;
  }
  if (graph) cudaGraphDestroy(graph);
  if (!out) cudaGetLastError();
  return out ? pg_cuda_status("capturing a graph", code) : PG_OK;
}

static pg_status graph_run(void *graph) {
  PG_CUDA_TRY(cudaGraphLaunch, graph, streams[PG_QUEUE_COMPUTE]);
  return PG_OK;
}

static void graph_free(void *graph) { cudaGraphExecDestroy(graph); }

/* ---- kernels ---- */

static pg_status borrow(void **memory, int64_t bytes) {
  return pg_memory_allocate(memory, PG_CUDA, PG_PURPOSE_OTHER, bytes);
}

static void give_back(void *memory, int64_t bytes) { pg_memory_release(memory, PG_CUDA, PG_PURPOSE_OTHER, bytes); }

static const pg_services services = {
  .tf32 = pg_tf32, .choice_find = pg_choice_find, .choice_keep = pg_choice_keep, .borrow = borrow, .give_back = give_back,
  .served = pg_queue_served,
};

static const pg_kernel_instance *kernel(int number, int dtype) {
  static const pg_kernel_instance *found[PG_MAX_KERNELS];
  static bool looked;
  if (!looked) { /* both tables are sorted by name */
    int mine = 0;
    for (int k = 0; k < pg_kernel_count() && k < PG_MAX_KERNELS; k++) {
      while (pg_cuda_kernel_table[mine].name && strcmp(pg_cuda_kernel_table[mine].name, pg_kernel_name(k)) < 0) mine++;
      const pg_cuda_kernel_entry *entry = &pg_cuda_kernel_table[mine];
      if (entry->name && !strcmp(entry->name, pg_kernel_name(k))) found[k] = entry->instance;
    }
    looked = true;
  }
  return number < PG_MAX_KERNELS && found[number] ? &found[number][dtype] : NULL;
}

/* ---- opening ---- */

static pg_status describe(void) {
  static char text[400];
  struct cudaDeviceProp p;
  int driver = 0, runtime = 0;
  PG_CUDA_TRY(cudaGetDeviceProperties, &p, 0);
  PG_CUDA_TRY(cudaDriverGetVersion, &driver);
  PG_CUDA_TRY(cudaRuntimeGetVersion, &runtime);
  int capability = 10 * p.major + p.minor;
  if (capability < LEAST_CAPABILITY)
    return pg_error(PG_ERROR_DEVICE, "cuda: %s has compute capability %d.%d; the kernels, and bfloat16, need 8.0", p.name,
                    p.major, p.minor);
  snprintf(text, sizeof text, "%s, compute capability %d.%d, %d multiprocessors, %.1f GiB, driver for CUDA %d.%d, runtime %d.%d",
           p.name, p.major, p.minor, p.multiProcessorCount, (double)p.totalGlobalMem / 1073741824.0, driver / 1000,
           driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  device.description = text;
  return PG_OK;
}

static pg_status open_device(void) {
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0)
    return pg_error(PG_ERROR_DEVICE, "cuda: no usable GPU and driver (cudaGetDeviceCount: %s); perigee doctor says more",
                    code == cudaSuccess ? "none" : cudaGetErrorName(code));
  PG_CUDA_TRY(cudaSetDevice, 0); /* CUDA_VISIBLE_DEVICES chooses among several */
  pg_status status = describe();
  for (int k = 0; k < PG_QUEUES && !status; k++) {
    status = pg_cuda_status("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&streams[k], cudaStreamNonBlocking));
    queues.stream[k] = streams[k];
  }
  return status ? status : ring_new();
}

static pg_queue_ops queues = {
  .pin = pin, .unpin = unpin, .copy = copy, .event_new = event_new, .event_free = event_free,
  .event_record = event_record, .event_wait = event_wait, .queue_wait = queue_wait, .event_seconds = event_seconds,
  .synchronise = synchronise, .capture_begin = capture_begin, .capture_end = capture_end, .graph_run = graph_run,
  .graph_free = graph_free, .services = &services,
};

static pg_device_ops device = {
  .name = "cuda", .allocate = allocate, .release = release, .from_host = from_host, .to_host = to_host, .within = within,
  .kernel = kernel, .memory = memory, .queues = &queues,
};

__attribute__((visibility("default"))) const pg_device_ops *pg_plugin_open(void) {
  return open_device() == PG_OK ? &device : NULL;
}
