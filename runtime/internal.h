/* Shared by the runtime's files, not by anyone outside it. */
#ifndef PERIGEE_INTERNAL_H
#define PERIGEE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"
#include "kernel_table.h"

enum { PG_MAX_KERNELS = 512 };
enum { PG_QUEUE_COMPUTE = 0, PG_QUEUE_COPY = 1, PG_QUEUES = 2 };

/* ---- memory.c: the one door through which memory comes ---- */

#pragma GCC visibility push(default) /* for devices' plugins too */
/* 64-byte aligned bytes on a device, accounted under a purpose. A test build fills them with NaN patterns. */
pg_status pg_memory_allocate(void **out, int device, int purpose, int64_t bytes);
void pg_memory_release(void *data, int device, int purpose, int64_t bytes);
/* Test hook (tests/gpu/graph.lua): what was queued on devices since the library was loaded: kernel calls one by one,
 * captures, launches of graphs; calls that a vendor's kernel served, or our own although the vendor's was wanted. */
typedef struct pg_queue_counts {
  int64_t calls, captures, launches, theirs, ours_instead;
} pg_queue_counts;
void pg_queue_counted(pg_queue_counts *out);
void pg_queue_served(int theirs);
#pragma GCC visibility pop
/* Small bookkeeping structures: zeroed host memory through the same failing hook; NULL when out of memory. */
void *pg_host_calloc(size_t count, size_t size);
void pg_host_free(void *p);

/* ---- processor.c ---- */

int pg_cpu_isa_number(void);      /* the instruction set chosen, of isas.h */
pg_status pg_cpu_isa_check(void); /* an error if PERIGEE_ISA asks for one that is not here */

/* ---- device.c: what a device can do; the CPU is built in, others are plugins ---- */

/* The functions that a device with queues adds. Work that is queued runs in order, and on its own time; queues and
 * their kernels are ordered by events. Everything else a device does (copies of pg_device_ops, frees) waits for what is
 * queued. */
typedef struct pg_queue_ops {
  void *stream[PG_QUEUES];     /* as kernels get it in pg_call.stream */
  const pg_services *services; /* as kernels get it in pg_call.services */
  /* Page-locked host memory, which queued copies may read and write while the host continues. */
  pg_status (*pin)(void **out, int64_t bytes);
  void (*unpin)(void *data);
  /* Device or pinned memory on either side. */
  pg_status (*copy)(int queue, void *to, const void *from, int64_t bytes);
  pg_status (*event_new)(void **out);
  void (*event_free)(void *event);
  pg_status (*event_record)(void *event, int queue);
  pg_status (*event_wait)(void *event);                /* the host waits */
  pg_status (*queue_wait)(int queue, void *event);     /* what is queued from now on waits */
  pg_status (*event_seconds)(void *from, void *to, double *seconds);
  pg_status (*synchronise)(void);
  /* Between these two, what is queued on the first queue becomes a graph instead of running. */
  pg_status (*capture_begin)(void);
  pg_status (*capture_end)(void **graph);              /* NULL after a call that failed: ends the capture all the same */
  pg_status (*graph_run)(void *graph);
  void (*graph_free)(void *graph);
} pg_queue_ops;

typedef struct pg_device_ops {
  const char *name;
  pg_status (*allocate)(void **out, int64_t bytes);
  void (*release)(void *data);
  pg_status (*from_host)(void *device, const void *host, int64_t bytes); /* the host's bytes may change afterwards */
  pg_status (*to_host)(void *host, const void *device, int64_t bytes);   /* done when it returns */
  pg_status (*within)(void *to, const void *from, int64_t bytes);
  /* The instance of a kernel for a dtype, or NULL. */
  const pg_kernel_instance *(*kernel)(int kernel, int dtype);
  pg_status (*memory)(int64_t *free_bytes, int64_t *total_bytes);
  const pg_queue_ops *queues; /* NULL: everything is done when a function returns */
  const char *description;    /* "NVIDIA H100, compute capability 9.0, ..." */
} pg_device_ops;

/* A plugin exports under this name its device, opened, or NULL after pg_error(). */
typedef const pg_device_ops *(*pg_plugin_function)(void);
#define PG_PLUGIN_FUNCTION "pg_plugin_open"

/* The device's operations, or NULL after pg_error(). */
const pg_device_ops *pg_device(int device);
const pg_kernel_instance *pg_kernel_instance_find(int kernel, int device, int dtype);

/* ---- feed.c: uploads that overlap with what runs, for devices with queues ---- */

typedef struct pg_feed pg_feed;
pg_status pg_feed_new(pg_feed **out, int device, int64_t bytes);
/* Copies `bytes` of host memory, which may change afterwards; kernels queued from now on find them at `to`. */
pg_status pg_feed_put(pg_feed *f, void *to, const void *host);
void pg_feed_free(pg_feed *f);

/* ---- tensor.c ---- */

bool pg_view_is_contiguous(const pg_view *v);
/* Fills strides for row-major order. */
void pg_view_pack(pg_view *v);

#endif
