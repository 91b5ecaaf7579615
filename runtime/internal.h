/* Shared by the runtime's files, not by anyone outside it. */
#ifndef PERIGEE_INTERNAL_H
#define PERIGEE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"
#include "kernel_table.h"

/* ---- memory.c: the one door through which memory comes ---- */

/* 64-byte aligned bytes on a device, accounted under a purpose. A test build fills them with NaN patterns. */
pg_status pg_memory_allocate(void **out, int device, int purpose, int64_t bytes);
void pg_memory_release(void *data, int device, int purpose, int64_t bytes);
/* Small bookkeeping structures: zeroed host memory through the same failing hook; NULL when out of memory. */
void *pg_host_calloc(size_t count, size_t size);
void pg_host_free(void *p);

/* ---- device.c: what a device can do; the CPU is built in ---- */

typedef struct pg_device_ops {
  const char *name;
  pg_status (*allocate)(void **out, int64_t bytes);
  void (*release)(void *data);
  pg_status (*from_host)(void *device, const void *host, int64_t bytes);
  pg_status (*to_host)(void *host, const void *device, int64_t bytes);
  pg_status (*within)(void *to, const void *from, int64_t bytes);
  /* The instance of a kernel for a dtype, or NULL. */
  const pg_kernel_instance *(*kernel)(int kernel, int dtype);
} pg_device_ops;

/* The device's operations, or NULL after pg_error(). */
const pg_device_ops *pg_device(int device);
const pg_kernel_instance *pg_kernel_instance_find(int kernel, int device, int dtype);

/* ---- tensor.c ---- */

bool pg_view_is_contiguous(const pg_view *v);
/* Fills strides for row-major order. */
void pg_view_pack(pg_view *v);

#endif
