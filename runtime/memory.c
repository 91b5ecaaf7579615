/* Every allocation passes here: accounted by device and purpose, and made to fail by tests. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static _Atomic int64_t held[PG_DEVICES][PG_PURPOSES], most[PG_DEVICES][PG_PURPOSES];
static _Atomic int64_t held_in_all[PG_DEVICES], most_in_all[PG_DEVICES];
static _Atomic int64_t allocations_left = -1;
static int64_t expected[PG_DEVICES];

const char *pg_purpose_name(int purpose) {
  static const char *const names[PG_PURPOSES] = {"other", "parameters", "gradients", "optimizer", "ema",
                                                 "arena", "data",       "teacher",   "signal"};
  return purpose >= 0 && purpose < PG_PURPOSES ? names[purpose] : "unknown";
}

static bool may_allocate(void) {
  int64_t left = atomic_load(&allocations_left);
  while (left >= 0) {
    if (left == 0) return false;
    if (atomic_compare_exchange_weak(&allocations_left, &left, left - 1)) break;
  }
  return true;
}

void pg_memory_fail_after(int64_t n) { atomic_store(&allocations_left, n); }

static void raise_peak(_Atomic int64_t *peak, int64_t now) {
  int64_t seen = atomic_load(peak);
  while (now > seen && !atomic_compare_exchange_weak(peak, &seen, now)) {
  }
}

/* The error of an allocation that failed: what was asked for, what is held and for what, what was planned. */
static void explain(const pg_device_ops *ops, int device, int purpose, int64_t bytes) {
  char text[512];
  const double mib = 1048576.0;
  int used = snprintf(text, sizeof text, "%.1f MiB are held", (double)pg_memory_now(device, -1) / mib);
  const char *separator = ": ";
  for (int p = 0; p < PG_PURPOSES && used < (int)sizeof text - 64; p++) {
    int64_t now = pg_memory_now(device, p);
    if (now < 1 << 16) continue;
    used += snprintf(text + used, sizeof text - (size_t)used, "%s%s %.1f", separator, pg_purpose_name(p), (double)now / mib);
    separator = ", ";
  }
  if (expected[device])
    used += snprintf(text + used, sizeof text - (size_t)used, "; planned in all: %.1f", (double)expected[device] / mib);
  int64_t free_bytes, total_bytes;
  if (device != PG_CPU && ops->memory(&free_bytes, &total_bytes) == PG_OK)
    snprintf(text + used, sizeof text - (size_t)used, "; the device has %.1f of %.1f free", (double)free_bytes / mib,
             (double)total_bytes / mib);
  pg_error(PG_ERROR_MEMORY, "memory: %s has no %.1f MiB left for %s (%s)", ops->name, (double)bytes / mib,
           pg_purpose_name(purpose), text);
}

pg_status pg_memory_allocate(void **out, int device, int purpose, int64_t bytes) {
  *out = NULL;
  const pg_device_ops *ops = pg_device(device);
  if (!ops) return PG_ERROR_DEVICE;
  if (bytes < 0 || bytes > INT64_MAX / 2)
    return pg_error(PG_ERROR_ARGUMENT, "memory: a size of %lld bytes makes no sense", (long long)bytes);
  if (!may_allocate()) return pg_error(PG_ERROR_MEMORY, "memory: allocation refused by the test hook");
  int64_t rounded = (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0);
  pg_status status = ops->allocate(out, rounded);
  if (status != PG_OK) {
    if (status == PG_ERROR_MEMORY) explain(ops, device, purpose, bytes);
    return status;
  }
#ifdef PERIGEE_POISON
  if (device == PG_CPU) memset(*out, 0xff, (size_t)rounded); /* NaN in every floating dtype */
#endif
  raise_peak(&most[device][purpose], atomic_fetch_add(&held[device][purpose], bytes) + bytes);
  raise_peak(&most_in_all[device], atomic_fetch_add(&held_in_all[device], bytes) + bytes);
  return PG_OK;
}

void pg_memory_release(void *data, int device, int purpose, int64_t bytes) {
  if (!data) return;
  pg_device(device)->release(data);
  atomic_fetch_sub(&held[device][purpose], bytes);
  atomic_fetch_sub(&held_in_all[device], bytes);
}

static bool known(int device, int purpose) { return device >= 0 && device < PG_DEVICES && purpose < PG_PURPOSES; }

int64_t pg_memory_now(int device, int purpose) {
  if (!known(device, purpose)) return 0;
  return purpose < 0 ? atomic_load(&held_in_all[device]) : atomic_load(&held[device][purpose]);
}

int64_t pg_memory_peak(int device, int purpose) {
  if (!known(device, purpose)) return 0;
  return purpose < 0 ? atomic_load(&most_in_all[device]) : atomic_load(&most[device][purpose]);
}

void pg_memory_reset_peak(int device) {
  if (!known(device, 0)) return;
  for (int p = 0; p < PG_PURPOSES; p++) atomic_store(&most[device][p], atomic_load(&held[device][p]));
  atomic_store(&most_in_all[device], atomic_load(&held_in_all[device]));
}

void pg_memory_expect(int device, int64_t bytes) {
  if (known(device, 0)) expected[device] = bytes;
}

void *pg_host_calloc(size_t count, size_t size) { return may_allocate() ? calloc(count ? count : 1, size ? size : 1) : NULL; }

void pg_host_free(void *p) { free(p); }
