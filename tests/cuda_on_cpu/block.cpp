/* Runs a launch: blocks in turn, their threads as fibres.
 *
 * A thread needs a fibre of its own only while it waits: one that returns leaves its fibre to the next thread that has
 * not begun, so a kernel without barriers is a loop on one stack. Whoever has to wait switches straight to the thread
 * that comes next in the chosen order. */
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_on_cpu.h"
#include "fibre.h"
#include "shared.h"

static const int warp_lanes = 32, most_threads = 1024;

struct async_copy {
  void *to;
  const void *from;
  unsigned bytes, zeros;
};

struct meeting { /* where a thread waits */
  const char *file;
  int line;
};

struct thread : cuda_on_cpu_thread {
  fibre *runs_on; /* nullptr: has not begun */
  meeting waits;  /* file == nullptr: it does not wait */
  bool done;
  std::vector<std::vector<async_copy>> copies; /* committed groups, oldest first; the last is open */
};

struct warp_meeting { /* lanes of one mask, kept under the lowest of them */
  unsigned mask, arrived;
  meeting at;
};

struct warp {
  unsigned runnable; /* lanes */
  warp_meeting meetings[warp_lanes];
  alignas(16) cuda_on_cpu_slot given[warp_lanes];
  alignas(16) cuda_on_cpu_slot received[warp_lanes];
};

static thread threads[most_threads];
static warp warps[most_threads / warp_lanes];
static int thread_count, warp_count, done_count;
static unsigned runnable_warps; /* those with a runnable lane */
static int barrier_arrived;

static void (*kernel_body)(const void *);
static const void *kernel_data;

cuda_on_cpu_thread *cuda_on_cpu_current;
cuda_on_cpu_grid cuda_on_cpu_place;

static fibre *scheduler;
static std::vector<fibre *> fibres, free_fibres;
static fibre *running;
static bool failed;

static thread *current() { return static_cast<thread *>(cuda_on_cpu_current); }

/* ---- failures ---- */

static char message[512];

const char *cuda_on_cpu_message() { return message; }

static void switch_to(fibre *to) {
  fibre *from = running;
  running = to;
  fibre_switch(from, to);
}

void cuda_on_cpu_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  const uint3 &b = cuda_on_cpu_place.index, &t = cuda_on_cpu_current->index;
  if (n >= 0 && n < static_cast<int>(sizeof message))
    snprintf(message + n, sizeof message - static_cast<size_t>(n), " (block %u,%u,%u, thread %u,%u,%u)", b.x, b.y, b.z,
             t.x, t.y, t.z);
  failed = true;
  switch_to(scheduler);
  abort(); /* nothing switches back to a launch that has ended */
}

/* ---- orders ---- */

static cuda_on_cpu_order order = CUDA_ON_CPU_GREEDY;
static uint64_t random_state = 1;

void cuda_on_cpu_set_order(cuda_on_cpu_order wanted, uint64_t seed) {
  order = wanted;
  random_state = seed * 2 + 1;
}

static void read_order() {
  const char *text = getenv("CUDA_ON_CPU_ORDER");
  if (!text || !*text || !strcmp(text, "greedy")) return;
  if (!strcmp(text, "ascending")) cuda_on_cpu_set_order(CUDA_ON_CPU_ASCENDING, 0);
  else if (!strcmp(text, "descending")) cuda_on_cpu_set_order(CUDA_ON_CPU_DESCENDING, 0);
  else if (!strncmp(text, "random:", 7)) cuda_on_cpu_set_order(CUDA_ON_CPU_RANDOM, strtoull(text + 7, nullptr, 10));
  else fprintf(stderr, "CUDA_ON_CPU_ORDER=%s: expected greedy, ascending, descending or random:SEED\n", text), abort();
}

static unsigned random_below(unsigned n) { /* splitmix64 */
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<unsigned>(((z ^ (z >> 31)) >> 32) * n >> 32);
}

static int lowest(unsigned bits) { return __builtin_ctz(bits); }
static int highest(unsigned bits) { return 31 - __builtin_clz(bits); }
static unsigned above(unsigned bits, int k) { return k >= 31 ? 0 : bits & ~0u << (k + 1); }
static unsigned below(unsigned bits, int k) { return bits & ((1u << k) - 1); }
static int any_of(unsigned bits) {
  unsigned skip = random_below(32);
  unsigned turned = skip ? bits >> skip | bits << (32 - skip) : bits;
  return static_cast<int>((static_cast<unsigned>(lowest(turned)) + skip) % 32);
}

static thread *lane_of(int w, int lane) { return &threads[w * warp_lanes + lane]; }

/* The thread that runs next, or nullptr if all wait or are done. */
static thread *next_thread() {
  if (!runnable_warps) return nullptr;
  int w = current()->warp, lane = current()->lane;
  unsigned here = warps[w].runnable;
  if (order == CUDA_ON_CPU_RANDOM) {
    w = any_of(runnable_warps);
    return lane_of(w, any_of(warps[w].runnable));
  }
  if (order == CUDA_ON_CPU_DESCENDING) {
    if (below(here, lane)) return lane_of(w, highest(below(here, lane)));
    unsigned later = below(runnable_warps, w);
    w = highest(later ? later : runnable_warps);
    return lane_of(w, highest(warps[w].runnable));
  }
  if (above(here, lane)) return lane_of(w, lowest(above(here, lane)));
  if (order == CUDA_ON_CPU_GREEDY && here) return lane_of(w, lowest(here));
  unsigned later = above(runnable_warps, w);
  w = lowest(later ? later : runnable_warps);
  return lane_of(w, lowest(warps[w].runnable));
}

static void set_runnable(int w, unsigned lanes) {
  warps[w].runnable |= lanes;
  runnable_warps |= 1u << w;
}

static void clear_runnable(int w, unsigned lanes) {
  warps[w].runnable &= ~lanes;
  if (!warps[w].runnable) runnable_warps &= ~(1u << w);
}

/* ---- switching ---- */

static void fibre_body();

static fibre *take_fibre() {
  if (free_fibres.empty()) {
    fibre *made = fibre_new(fibre_body);
    if (!made) fprintf(stderr, "no memory for another thread's stack\n"), abort();
    fibres.push_back(made);
    return made;
  }
  fibre *f = free_fibres.back();
  free_fibres.pop_back();
  return f;
}

/* Gives way to the thread that comes next; returns when it is this one's turn again. */
static void give_way() {
  thread *self = current(), *next = next_thread();
  if (next == self) return;
  if (!next) {
    switch_to(scheduler);
  } else {
    if (!next->runs_on) next->runs_on = take_fibre();
    cuda_on_cpu_current = next;
    switch_to(next->runs_on);
  }
}

static void end_copies(thread *t);

/* Every fibre's body: runs the current thread, then those that have not begun, as long as it is their turn. */
static void fibre_body() {
  for (;;) {
    thread *self = current();
    kernel_body(kernel_data);
    end_copies(self);
    self->done = true;
    done_count++;
    clear_runnable(self->warp, 1u << self->lane);
    thread *next = next_thread();
    if (next && !next->runs_on) {
      next->runs_on = running;
      cuda_on_cpu_current = next;
      continue;
    }
    free_fibres.push_back(running);
    if (next) cuda_on_cpu_current = next;
    switch_to(next ? next->runs_on : scheduler);
  }
}

/* ---- meetings ---- */

static bool same(const meeting &a, const meeting &b) {
  return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

void cuda_on_cpu_barrier(const char *file, int line) {
  thread *self = current();
  static meeting at;
  if (!barrier_arrived) at = {file, line};
  if (!same(at, {file, line}))
    cuda_on_cpu_fail("__syncthreads at %s:%d, while others of the block wait at %s:%d", file, line, at.file, at.line);
  if (done_count)
    cuda_on_cpu_fail("__syncthreads at %s:%d, which %d of the block's threads have missed: they returned", file, line,
                     done_count);
  if (++barrier_arrived < thread_count) {
    self->waits = {file, line};
    clear_runnable(self->warp, 1u << self->lane);
  } else {
    barrier_arrived = 0;
    for (int t = 0; t < thread_count; t++) {
      threads[t].waits.file = nullptr;
      set_runnable(threads[t].warp, 1u << threads[t].lane);
    }
  }
  give_way();
}

/* The lanes of a mask that will not come. */
static unsigned missing_lanes(int w, unsigned mask) {
  unsigned missing = 0;
  for (int lane = 0; lane < warp_lanes; lane++)
    if (mask >> lane & 1 && (w * warp_lanes + lane >= thread_count || lane_of(w, lane)->done)) missing |= 1u << lane;
  return missing;
}

const cuda_on_cpu_slot *cuda_on_cpu_exchange(unsigned mask, const void *mine, size_t bytes, const char *file,
                                             int line) {
  thread *self = current();
  warp *w = &warps[self->warp];
  if (!(mask >> self->lane & 1))
    cuda_on_cpu_fail("%s:%d: lane %d is not in its own mask 0x%08x", file, line, self->lane, mask);
  warp_meeting *m = &w->meetings[lowest(mask)];
  if (!m->arrived) *m = {mask, 0, {file, line}};
  if (m->mask != mask || !same(m->at, {file, line}))
    cuda_on_cpu_fail("%s:%d: a meeting of lanes 0x%08x, while others of the warp wait at %s:%d for lanes 0x%08x", file,
                     line, mask, m->at.file, m->at.line, m->mask);
  unsigned missing = m->arrived ? 0 : missing_lanes(self->warp, mask);
  if (missing)
    cuda_on_cpu_fail("%s:%d: the mask 0x%08x names lanes 0x%08x, which returned or never were", file, line, mask,
                     missing);
  if (bytes) memcpy(w->given[self->lane], mine, bytes);
  m->arrived |= 1u << self->lane;
  if (m->arrived != mask) {
    self->waits = {file, line};
    clear_runnable(self->warp, 1u << self->lane);
  } else {
    m->arrived = 0;
    for (unsigned left = mask; left; left &= left - 1) {
      int lane = lowest(left);
      if (bytes) memcpy(w->received[lane], w->given[lane], bytes);
      lane_of(self->warp, lane)->waits.file = nullptr;
    }
    set_runnable(self->warp, mask);
  }
  give_way();
  return w->received;
}

void cuda_on_cpu_yield() {
  if (order == CUDA_ON_CPU_RANDOM && random_below(2)) give_way();
}

/* ---- asynchronous copies ---- */

static void run_copies(const std::vector<async_copy> &group) {
  for (const async_copy &c : group) {
    memcpy(c.to, c.from, c.bytes);
    memset(static_cast<unsigned char *>(c.to) + c.bytes, 0, c.zeros);
  }
}

void cuda_on_cpu_copy_async(void *to, const void *from, unsigned bytes, unsigned zeros) {
  cuda_on_cpu_expect_aligned(to, bytes + zeros, "a cp.async's destination");
  if (bytes) cuda_on_cpu_expect_aligned(from, bytes + zeros, "a cp.async's source");
  thread *self = current();
  if (self->copies.empty()) self->copies.emplace_back();
  self->copies.back().push_back({to, from, bytes, zeros});
}

void cuda_on_cpu_copy_commit() {
  thread *self = current();
  if (self->copies.empty()) self->copies.emplace_back();
  self->copies.emplace_back();
}

void cuda_on_cpu_copy_wait(unsigned groups_left) {
  thread *self = current();
  while (self->copies.size() > groups_left + 1) {
    run_copies(self->copies.front());
    self->copies.erase(self->copies.begin());
  }
}

/* What nobody waited for arrives at the thread's end. */
static void end_copies(thread *t) {
  for (const auto &group : t->copies) run_copies(group);
  t->copies.clear();
}

void cuda_on_cpu_expect_aligned(const void *p, size_t alignment, const char *what) {
  if (reinterpret_cast<uintptr_t>(p) % alignment)
    cuda_on_cpu_fail("%s is at %p, expected a multiple of %zu bytes", what, p, alignment);
}

/* ---- blocks and launches ---- */

static void begin_block(const dim3 &shape) {
  thread_count = static_cast<int>(shape.x * shape.y * shape.z);
  warp_count = (thread_count + warp_lanes - 1) / warp_lanes;
  done_count = 0;
  barrier_arrived = 0;
  runnable_warps = warp_count == 32 ? ~0u : (1u << warp_count) - 1;
  for (int w = 0; w < warp_count; w++) {
    int lanes = thread_count - w * warp_lanes;
    warps[w].runnable = lanes >= warp_lanes ? ~0u : (1u << lanes) - 1;
    for (warp_meeting &m : warps[w].meetings) m.arrived = 0;
  }
  unsigned t = 0;
  for (unsigned z = 0; z < shape.z; z++)
    for (unsigned y = 0; y < shape.y; y++)
      for (unsigned x = 0; x < shape.x; x++, t++) {
        thread &made = threads[t];
        made.index = {x, y, z};
        made.linear = static_cast<int>(t);
        made.lane = made.linear % warp_lanes;
        made.warp = made.linear / warp_lanes;
        made.runs_on = nullptr;
        made.waits.file = nullptr;
        made.done = false;
      }
}

/* Says why nobody can go on: a barrier that some have passed by. */
static void explain_waiting() {
  for (int t = 0; t < thread_count; t++) {
    if (!threads[t].waits.file) continue;
    cuda_on_cpu_current = &threads[t];
    snprintf(message, sizeof message,
             "%s:%d: thread %d of block %u,%u,%u waits for threads that never come (%d of %d have returned)",
             threads[t].waits.file, threads[t].waits.line, t, cuda_on_cpu_place.index.x, cuda_on_cpu_place.index.y,
             cuda_on_cpu_place.index.z, done_count, thread_count);
    return;
  }
}

static bool run_block() {
  begin_block(cuda_on_cpu_place.block);
  shared_begin(cuda_on_cpu_place.dynamic_bytes);
  cuda_on_cpu_current = &threads[order == CUDA_ON_CPU_DESCENDING ? thread_count - 1 : 0];
  if (order == CUDA_ON_CPU_RANDOM) cuda_on_cpu_current = next_thread();
  failed = false;
  fibre *first = take_fibre();
  current()->runs_on = first;
  switch_to(first);
  if (!failed && done_count < thread_count) {
    explain_waiting();
    failed = true;
  }
  if (const char *overrun = shared_end(); overrun && !failed) {
    snprintf(message, sizeof message, "block %u,%u,%u %s", cuda_on_cpu_place.index.x, cuda_on_cpu_place.index.y,
             cuda_on_cpu_place.index.z, overrun);
    failed = true;
  }
  return !failed;
}

static void forget_fibres() {
  free_fibres = fibres;
  for (fibre *f : fibres) fibre_restart(f);
  for (thread &t : threads) t.copies.clear();
}

static uint64_t common_divisor(uint64_t a, uint64_t b) { return b ? common_divisor(b, a % b) : a; }

struct launch {
  dim3 grid, block;
  size_t dynamic_bytes, data_offset;
  void (*body)(const void *);
};

static cudaError_t run_launch(const void *data) {
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> lock(one_at_a_time);
  launch l;
  memcpy(&l, data, sizeof l);
  kernel_body = l.body;
  kernel_data = static_cast<const unsigned char *>(data) + l.data_offset;
  cuda_on_cpu_place = {l.grid, l.block, {0, 0, 0}, l.dynamic_bytes};
  running = scheduler = fibre_main();
  uint64_t blocks = static_cast<uint64_t>(l.grid.x) * l.grid.y * l.grid.z, first = 0, step = 1;
  if (order == CUDA_ON_CPU_DESCENDING) first = step = blocks - 1;
  if (order == CUDA_ON_CPU_RANDOM) {
    first = random_below(static_cast<unsigned>(blocks));
    do step = 1 + random_below(static_cast<unsigned>(blocks));
    while (common_divisor(step, blocks) != 1);
  }
  for (uint64_t k = 0, b = first; k < blocks; k++, b = (b + step) % blocks) {
    cuda_on_cpu_place.index = {static_cast<unsigned>(b % l.grid.x), static_cast<unsigned>(b / l.grid.x % l.grid.y),
                               static_cast<unsigned>(b / l.grid.x / l.grid.y)};
    if (run_block()) continue;
    forget_fibres();
    return cuda_on_cpu_record(cudaErrorLaunchFailure);
  }
  return cudaSuccess;
}

static bool fits(const dim3 &size, unsigned x, unsigned y, unsigned z) {
  return size.x >= 1 && size.y >= 1 && size.z >= 1 && size.x <= x && size.y <= y && size.z <= z;
}

cudaError_t cuda_on_cpu_launch(const cudaLaunchConfig_t *config, void (*body)(const void *), const void *data,
                               size_t bytes) {
  static std::once_flag once;
  std::call_once(once, read_order);
  const dim3 &grid = config->gridDim, &block = config->blockDim;
  if (!fits(grid, 0x7fffffff, 65535, 65535) || !fits(block, 1024, 1024, 64) ||
      block.x * block.y * block.z > most_threads || config->dynamicSmemBytes > shared_most)
    return cuda_on_cpu_record(cudaErrorInvalidConfiguration);
  size_t offset = (sizeof(launch) + 15) / 16 * 16;
  std::vector<unsigned char> work(offset + bytes);
  launch l = {grid, block, config->dynamicSmemBytes, offset, body};
  memcpy(work.data(), &l, sizeof l);
  memcpy(work.data() + offset, data, bytes);
  return cuda_on_cpu_submit(config->stream, run_launch, work.data(), work.size());
}
