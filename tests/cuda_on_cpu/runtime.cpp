/* Stands for the CUDA runtime: memory, streams, events, graphs.
 *
 * Streams are lazy: what is queued runs only when somebody waits for it, so code that forgets to wait reads poison, every
 * time. Page-locked memory is read and written when the copy runs, ordinary memory as CUDA does it: what a copy reads is
 * taken at once, what it writes is there when it returns. The stream 0 waits for all others and runs its work at once.
 * Copies must lie inside allocations; what CUDA forbids during a capture is an error. Unlike on a GPU, an error of queued
 * work is told once, to the next that waits, and the device lives on, but for what CUDA_ON_CPU_FAIL_GRAPH asks for.
 *
 *   CUDA_ON_CPU_DEVICES=0         a driver without GPUs
 *   CUDA_ON_CPU_CAPABILITY=7.5    default 9.0
 *   CUDA_ON_CPU_MEMORY=MIB        default 8192
 *   CUDA_ON_CPU_FAIL_GRAPH=N      the N-th graph that is launched fails when it runs, and from then on every call does */
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_on_cpu.h"
#include "shared.h"

using work = std::function<cudaError_t()>;

struct CUgraph_st {
  std::vector<work> list;
};
struct CUgraphExec_st {
  std::vector<work> list;
};
struct event_state {
  CUstream_st *stream = nullptr;
  unsigned long long recorded = 0, done = 0; /* which record is the last, queued and run */
  double seconds = 0;
  bool timed = true;
};
struct CUevent_st {
  std::shared_ptr<event_state> state = std::make_shared<event_state>();
};
struct CUstream_st {
  std::deque<work> queue;
  CUgraph_st *capture = nullptr;
  bool spoilt = false; /* something forbidden was done during the capture */
};

struct block {
  size_t bytes;
  bool pinned;
};

static std::recursive_mutex mutex;
static std::map<const char *, block> blocks;
static std::vector<CUstream_st *> streams;
static CUstream_st *capturing;
static size_t used;
static thread_local cudaError_t last_error = cudaSuccess;
static cudaError_t pending = cudaSuccess; /* of work that ran, told to the next that waits */
static bool lost;                         /* every call fails, as on a GPU after a kernel that failed */
static int64_t waits;                     /* for all that a queue held */
static int64_t kernels_left = -1;         /* until one fails */

#define LOCKED std::lock_guard<std::recursive_mutex> lock(mutex)

static long setting(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}

/* ---- errors ---- */

extern "C" cudaError_t cuda_on_cpu_record(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

extern "C" cudaError_t cudaPeekAtLastError(void) { return last_error; }

extern "C" cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

static const struct {
  cudaError_t code;
  const char *name, *text;
} errors[] = {
  {cudaSuccess, "cudaSuccess", "no error"},
  {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
  {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
  {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
  {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
  {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
  {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
  {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
  {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
  {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
   "operation not permitted when stream is capturing"},
  {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
   "operation failed due to a previous error during capture"},
};

extern "C" const char *cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return *cuda_on_cpu_message() ? cuda_on_cpu_message() : "unspecified launch failure";
  for (const auto &e : errors)
    if (e.code == error) return e.text;
  return "unrecognized error code";
}

extern "C" const char *cudaGetErrorName(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return "cudaErrorLaunchFailure";
  for (const auto &e : errors)
    if (e.code == error) return e.name;
  return "unrecognized error code";
}

static cudaError_t fail(cudaError_t error) { return cuda_on_cpu_record(error); }

/* For calls that a capturing thread may not make. */
static bool forbidden() {
  if (capturing) capturing->spoilt = true;
  return capturing != nullptr;
}

/* ---- running queues ---- */

static void run_one(CUstream_st *s) {
  work w = std::move(s->queue.front());
  s->queue.pop_front();
  cudaError_t error = w();
  if (error != cudaSuccess && pending == cudaSuccess) pending = error;
}

static void drain(CUstream_st *s) {
  waits++;
  while (!s->queue.empty()) run_one(s);
}

static void drain_all() {
  for (size_t k = 0; k < streams.size(); k++) drain(streams[k]);
}

extern "C" int64_t cuda_on_cpu_waits(void) {
  LOCKED;
  return waits;
}

extern "C" int64_t cuda_on_cpu_queued(void) {
  LOCKED;
  size_t queued = 0;
  for (const CUstream_st *s : streams) queued += s->queue.size();
  return static_cast<int64_t>(queued);
}

static cudaError_t settled() {
  cudaError_t error = pending;
  if (!lost) pending = cudaSuccess;
  return fail(error);
}

static cudaError_t queue_work(cudaStream_t s, work w) {
  if (lost) return fail(cudaErrorLaunchFailure);
  if (!s) {
    if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
    drain_all();
    return fail(w());
  }
  if (s->capture) s->capture->list.push_back(std::move(w));
  else s->queue.push_back(std::move(w));
  return cudaSuccess;
}

extern "C" cudaError_t cuda_on_cpu_submit(cudaStream_t stream, cuda_on_cpu_work run, const void *data, size_t bytes) {
  LOCKED;
  struct alignas(16) unit {
    char bytes[16];
  };
  auto copy = std::make_shared<std::vector<unit>>((bytes + 15) / 16);
  memcpy(copy->data(), data, bytes);
  return queue_work(stream, [run, copy] {
    if (kernels_left >= 0 && kernels_left-- == 0) return cudaErrorLaunchFailure;
    return run(copy->data());
  });
}

extern "C" void cuda_on_cpu_fail_after(int64_t kernels) {
  LOCKED;
  kernels_left = kernels;
}

extern "C" cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute attribute, int value) {
  bool fits = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value >= 0 &&
              static_cast<size_t>(value) <= shared_most;
  return fail(fits ? cudaSuccess : cudaErrorInvalidValue);
}

/* ---- the device ---- */

extern "C" cudaError_t cudaGetDeviceCount(int *count) {
  *count = static_cast<int>(setting("CUDA_ON_CPU_DEVICES", 1));
  return *count ? cudaSuccess : fail(cudaErrorNoDevice);
}
extern "C" cudaError_t cudaSetDevice(int device) { return fail(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
extern "C" cudaError_t cudaGetDevice(int *device) {
  *device = 0;
  return cudaSuccess;
}

static void capability(int *major, int *minor) {
  const char *text = getenv("CUDA_ON_CPU_CAPABILITY");
  *major = 9, *minor = 0;
  if (text && *text) sscanf(text, "%d.%d", major, minor);
}

static size_t total_bytes() { return static_cast<size_t>(setting("CUDA_ON_CPU_MEMORY", 8192)) << 20; }

extern "C" cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  if (device != 0) return fail(cudaErrorInvalidDevice);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "CUDA on the CPU");
  capability(&p->major, &p->minor);
  p->totalGlobalMem = total_bytes();
  p->multiProcessorCount = 4;
  return cudaSuccess;
}

extern "C" cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  int major, minor;
  capability(&major, &minor);
  if (device != 0) return fail(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(shared_most); return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = minor; return cudaSuccess;
  }
  return fail(cudaErrorInvalidValue);
}

extern "C" cudaError_t cudaDriverGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
extern "C" cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }

extern "C" cudaError_t cudaDeviceSynchronize(void) {
  LOCKED;
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  drain_all();
  return settled();
}

/* ---- memory ---- */

/* The allocation that holds the bytes, or NULL: then they are ordinary memory of the host. */
static const block *find(const void *data, size_t bytes, bool *inside) {
  const char *p = static_cast<const char *>(data);
  auto at = blocks.upper_bound(p);
  *inside = true;
  if (at == blocks.begin()) return nullptr;
  --at;
  if (p >= at->first + at->second.bytes) return nullptr;
  *inside = p + bytes <= at->first + at->second.bytes;
  return &at->second;
}

extern "C" int cuda_on_cpu_holds(const void *data, size_t bytes) {
  LOCKED;
  bool inside;
  const block *found = find(data, bytes, &inside);
  return found && !found->pinned && inside;
}

static cudaError_t allocate(void **out, size_t bytes, bool pinned) {
  *out = nullptr;
  if (lost) return fail(cudaErrorLaunchFailure);
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  if (!pinned && used + bytes > total_bytes()) return fail(cudaErrorMemoryAllocation);
  void *data = nullptr;
  if (posix_memalign(&data, 256, bytes ? bytes : 1)) return fail(cudaErrorMemoryAllocation);
  memset(data, 0xff, bytes); /* NaN in every floating dtype */
  blocks[static_cast<char *>(data)] = {bytes, pinned};
  if (!pinned) used += bytes;
  *out = data;
  return cudaSuccess;
}

static cudaError_t deallocate(void *data, bool pinned) {
  if (!data) return cudaSuccess;
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  drain_all();
  if (lost) return fail(cudaErrorLaunchFailure);
  auto at = blocks.find(static_cast<char *>(data));
  if (at == blocks.end() || at->second.pinned != pinned) return fail(cudaErrorInvalidValue);
  if (!pinned) used -= at->second.bytes;
  blocks.erase(at);
  free(data);
  return cudaSuccess;
}

extern "C" cudaError_t cudaMemGetInfo(size_t *unused, size_t *total) {
  LOCKED;
  *total = total_bytes();
  *unused = *total - used;
  return cudaSuccess;
}
extern "C" cudaError_t cudaMalloc(void **out, size_t bytes) {
  LOCKED;
  return allocate(out, bytes, false);
}
extern "C" cudaError_t cudaFree(void *data) {
  LOCKED;
  return deallocate(data, false);
}
extern "C" cudaError_t cudaMallocHost(void **out, size_t bytes) {
  LOCKED;
  return allocate(out, bytes, true);
}
extern "C" cudaError_t cudaFreeHost(void *data) {
  LOCKED;
  return deallocate(data, true);
}

/* Is memory of the device where the kind of a copy says so, and memory of the host elsewhere? */
static bool kind_fits(cudaMemcpyKind kind, const block *to, const block *from) {
  bool to_device = to && !to->pinned, from_device = from && !from->pinned;
  return kind == cudaMemcpyDefault || (to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
                                       from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice));
}

extern "C" cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  LOCKED;
  if (!bytes) return cudaSuccess;
  bool inside_to, inside_from;
  const block *target = find(to, bytes, &inside_to), *source = find(from, bytes, &inside_from);
  if (!inside_to || !inside_from || !kind_fits(kind, target, source)) return fail(cudaErrorInvalidValue);
  if (target && source)
    return queue_work(stream, [=] {
      memmove(to, from, bytes);
      return cudaSuccess;
    });
  if (stream && stream->capture) { /* a graph may not depend on memory that can go away */
    stream->spoilt = true;
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  if (target) {
    waits++; /* CUDA brings it to page-locked memory first, and may wait for that */
    auto taken = std::make_shared<std::vector<char>>(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
    return queue_work(stream, [=] {
      memcpy(to, taken->data(), bytes);
      return cudaSuccess;
    });
  }
  if (stream) drain(stream);
  else drain_all();
  memmove(to, from, bytes);
  return cudaSuccess;
}

extern "C" cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

extern "C" cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  LOCKED;
  bool inside;
  const block *target = find(to, bytes, &inside);
  if (!target || target->pinned || !inside) return fail(cudaErrorInvalidValue);
  return queue_work(stream, [=] {
    memset(to, value, bytes);
    return cudaSuccess;
  });
}

/* ---- streams and events ---- */

extern "C" cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
  LOCKED;
  streams.push_back(*out = new CUstream_st);
  return cudaSuccess;
}

extern "C" cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  LOCKED;
  drain(stream);
  for (size_t k = 0; k < streams.size(); k++)
    if (streams[k] == stream) streams.erase(streams.begin() + static_cast<long>(k));
  delete stream;
  return cudaSuccess;
}

extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  LOCKED;
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream) drain(stream);
  else drain_all();
  return settled();
}

extern "C" cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
  *out = new CUevent_st;
  (*out)->state->timed = !(flags & cudaEventDisableTiming);
  return cudaSuccess;
}
extern "C" cudaError_t cudaEventCreate(cudaEvent_t *out) { return cudaEventCreateWithFlags(out, cudaEventDefault); }
extern "C" cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

extern "C" cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  LOCKED;
  auto state = event->state;
  if (stream && stream->capture) return fail(cudaErrorStreamCaptureUnsupported); /* nobody here captures several streams */
  if (lost) return fail(cudaErrorLaunchFailure);
  state->stream = stream;
  auto ticket = ++state->recorded;
  return queue_work(stream, [state, ticket] {
    state->done = ticket;
    state->seconds = now();
    return cudaSuccess;
  });
}

static void run_until(const std::shared_ptr<event_state> &state, unsigned long long ticket) {
  while (state->done < ticket) run_one(state->stream);
}

extern "C" cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LOCKED;
  if (forbidden()) return fail(cudaErrorStreamCaptureUnsupported);
  if (lost) return fail(cudaErrorLaunchFailure);
  run_until(event->state, event->state->recorded);
  return settled();
}

extern "C" cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  LOCKED;
  auto state = event->state;
  auto ticket = state->recorded;
  if (ticket == 0 || state->stream == stream) return cudaSuccess;
  return queue_work(stream, [state, ticket] {
    run_until(state, ticket);
    return cudaSuccess;
  });
}

extern "C" cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
  LOCKED;
  if (!from->state->timed || !to->state->timed || !from->state->recorded || !to->state->recorded)
    return fail(cudaErrorInvalidResourceHandle);
  if (from->state->done < from->state->recorded || to->state->done < to->state->recorded) return fail(cudaErrorNotReady);
  *milliseconds = static_cast<float>(1e3 * (to->state->seconds - from->state->seconds));
  return cudaSuccess;
}

/* ---- graphs ---- */

extern "C" cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  LOCKED;
  if (!stream) return fail(cudaErrorStreamCaptureUnsupported);
  if (stream->capture || capturing) return fail(cudaErrorIllegalState);
  stream->capture = new CUgraph_st;
  stream->spoilt = false;
  capturing = stream;
  return cudaSuccess;
}

extern "C" cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  LOCKED;
  *out = nullptr;
  if (!stream || !stream->capture) return fail(cudaErrorIllegalState);
  CUgraph_st *graph = stream->capture;
  stream->capture = nullptr;
  capturing = nullptr;
  if (stream->spoilt) {
    delete graph;
    return fail(cudaErrorStreamCaptureInvalidated);
  }
  *out = graph;
  return cudaSuccess;
}

extern "C" cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  *out = new CUgraphExec_st{graph->list};
  return cudaSuccess;
}

extern "C" cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  LOCKED;
  static long launches;
  auto list = graph->list;
  if (++launches == setting("CUDA_ON_CPU_FAIL_GRAPH", 0))
    list.insert(list.begin(), [] {
      lost = true;
      return cudaErrorLaunchFailure;
    });
  for (const work &w : list) {
    cudaError_t error = queue_work(stream, w);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

extern "C" cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
extern "C" cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
