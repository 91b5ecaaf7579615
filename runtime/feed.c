/* Feeds: host memory on its way to a device, in two page-locked pieces by turns, so that the next piece is uploaded while
 * the device computes on the last. */
#include <string.h>

#include "internal.h"

struct pg_feed {
  const pg_queue_ops *queues;
  int device;
  int64_t bytes;
  int turn;
  struct side {
    void *pinned, *landed; /* on the host; on the device */
    void *uploaded;        /* event: `landed` holds what `pinned` held, which is free again */
    void *consumed;        /* event: `landed` was copied on */
  } side[2];
};

pg_status pg_feed_new(pg_feed **out, int device, int64_t bytes) {
  *out = NULL;
  const pg_device_ops *ops = pg_device(device);
  if (!ops) return PG_ERROR_DEVICE;
  pg_feed *f = pg_host_calloc(1, sizeof *f);
  if (!f) return pg_error(PG_ERROR_MEMORY, "feed: out of memory");
  *f = (pg_feed){.queues = ops->queues, .device = device, .bytes = bytes};
  pg_status status = PG_OK;
  for (int k = 0; k < 2 && !status; k++) {
    struct side *s = &f->side[k];
    status = f->queues->pin(&s->pinned, bytes);
    if (!status) status = pg_memory_allocate(&s->landed, device, PG_PURPOSE_DATA, bytes);
    if (!status) status = f->queues->event_new(&s->uploaded);
    if (!status) status = f->queues->event_new(&s->consumed);
  }
  if (status) pg_feed_free(f);
  else *out = f;
  return status;
}

void pg_feed_free(pg_feed *f) {
  if (!f) return;
  f->queues->synchronise(); /* an error of what was queued belongs to whoever waits for its results */
  for (int k = 0; k < 2; k++) {
    struct side *s = &f->side[k];
    if (s->uploaded) f->queues->event_free(s->uploaded);
    if (s->consumed) f->queues->event_free(s->consumed);
    if (s->pinned) f->queues->unpin(s->pinned);
    pg_memory_release(s->landed, f->device, PG_PURPOSE_DATA, f->bytes);
  }
  pg_host_free(f);
}

pg_status pg_feed_put(pg_feed *f, void *to, const void *host) {
  const pg_queue_ops *q = f->queues;
  struct side *s = &f->side[f->turn ^= 1];
  pg_status status = q->event_wait(s->uploaded);
  if (status) return status;
  memcpy(s->pinned, host, (size_t)f->bytes);
  status = q->queue_wait(PG_QUEUE_COPY, s->consumed);
  if (!status) status = q->copy(PG_QUEUE_COPY, s->landed, s->pinned, f->bytes);
  if (!status) status = q->event_record(s->uploaded, PG_QUEUE_COPY);
  if (!status) status = q->queue_wait(PG_QUEUE_COMPUTE, s->uploaded);
  if (!status) status = q->copy(PG_QUEUE_COMPUTE, to, s->landed, f->bytes);
  return status ? status : q->event_record(s->consumed, PG_QUEUE_COMPUTE);
}
