/* Readings: numbers on their way from a device to page-locked host memory, and the event that says they are there. */
#include <string.h>

#include "internal.h"

struct pg_reading {
  const pg_queue_ops *queues; /* NULL: nothing to wait for */
  int device;
  int64_t bytes;
  char *host;
  void *event;
};

pg_status pg_reading_new(pg_reading **out, int device, int64_t bytes) {
  *out = NULL;
  const pg_device_ops *ops = pg_device(device);
  if (!ops) return PG_ERROR_DEVICE;
  if (bytes < 0) return pg_error(PG_ERROR_ARGUMENT, "reading: %lld bytes", (long long)bytes);
  pg_reading *r = pg_host_calloc(1, sizeof *r);
  if (!r) return pg_error(PG_ERROR_MEMORY, "reading: out of memory");
  *r = (pg_reading){.queues = ops->queues, .device = device, .bytes = bytes};
  pg_status status = PG_OK;
  if (r->queues) {
    void *host = NULL;
    status = r->queues->pin(&host, bytes);
    r->host = host;
    if (!status) status = r->queues->event_new(&r->event);
  } else if (!(r->host = pg_host_calloc(1, (size_t)bytes))) {
    status = pg_error(PG_ERROR_MEMORY, "reading: out of memory");
  }
  if (status) pg_reading_free(r);
  else *out = r;
  return status;
}

void pg_reading_free(pg_reading *r) {
  if (!r) return;
  if (!r->queues) pg_host_free(r->host);
  else {
    if (r->event) {
      r->queues->event_wait(r->event); /* copies into the memory may be queued */
      r->queues->event_free(r->event);
    }
    if (r->host) r->queues->unpin(r->host);
  }
  pg_host_free(r);
}

pg_status pg_reading_add(pg_reading *r, int64_t offset, const pg_tensor *t) {
  const pg_view *v = pg_tensor_info(t);
  int64_t bytes = pg_numel(v) * pg_dtype_bytes(v->dtype);
  if (!pg_contiguous(v) || pg_tensor_device(t) != r->device || offset < 0 || offset + bytes > r->bytes)
    return pg_error(PG_ERROR_ARGUMENT, "reading: a tensor %s of %s at byte %lld of %lld", pg_shape_text(v),
                    pg_device_name(pg_tensor_device(t)), (long long)offset, (long long)r->bytes);
  if (r->queues) return r->queues->copy(PG_QUEUE_COMPUTE, r->host + offset, v->data, bytes);
  memcpy(r->host + offset, v->data, (size_t)bytes);
  return PG_OK;
}

pg_status pg_reading_close(pg_reading *r) { return r->queues ? r->queues->event_record(r->event, PG_QUEUE_COMPUTE) : PG_OK; }

pg_status pg_reading_wait(pg_reading *r, const void **host) {
  *host = r->host;
  return r->queues ? r->queues->event_wait(r->event) : PG_OK;
}
