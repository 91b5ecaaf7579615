/* A library to preload: clocks that jump. Every few readings the time of day moves by up to ten years either way, as
 * when it is set, and the monotonic clock by up to an hour ahead, as when a machine was asleep or moved.
 * tests/faults/kills_spec.lua uses it. PERIGEE_CLOCK_SEED chooses the jumps. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BETWEEN = 16, HOUR = 3600, YEARS = 10 * 365 * 24 }; /* BETWEEN: readings on average from one jump to the next */

static atomic_llong of_day, ahead; /* seconds added to the time of day, and to monotonic clocks */
static atomic_ullong state;

static uint64_t draw(void) { /* splitmix64 */
  const char *seed = getenv("PERIGEE_CLOCK_SEED");
  uint64_t x = atomic_fetch_add(&state, 0x9e3779b97f4a7c15u) + (seed ? strtoull(seed, NULL, 10) : 0) * 0x2545f4914f6cdd1du;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static void jump(void) {
  uint64_t drawn = draw();
  if (drawn % BETWEEN) return;
  atomic_store(&of_day, ((long long)(draw() % (2 * YEARS)) - YEARS) * HOUR);
  atomic_fetch_add(&ahead, (long long)(draw() % HOUR));
}

int clock_gettime(clockid_t clock, struct timespec *out) {
  long status = syscall(SYS_clock_gettime, clock, out);
  if (status) return (int)status;
  jump();
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) out->tv_sec += atomic_load(&of_day);
  if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_BOOTTIME)
    out->tv_sec += atomic_load(&ahead);
  return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
