/* The loader: threads make batches ahead of the training loop.
 *
 * A ring of `depth` slots, each holding one batch of every field in host memory. The batch of step s goes into slot
 * s mod depth. One mutex guards everything but the bytes: workers take chunks of a slot's samples under it, fill
 * them outside it; a full slot is ready, pg_loader_next copies it out and frees it for step s + depth. Threads with
 * nothing to do sleep. The random draws of a sample come from (seed, purpose, position), so threads change nothing. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "loader.h"

enum { MAX_FIELDS = 64, MAX_DEPTH = 64, MAX_THREADS = 256, CHUNK = 32 };

typedef enum slot_state { SLOT_EMPTY, SLOT_FILLING, SLOT_READY } slot_state;

typedef struct slot {
  slot_state state;
  int64_t step;
  int64_t taken, done; /* samples given to workers, samples filled */
  pg_status status;    /* the first failure among its samples */
  char message[512];
  int64_t *indices;          /* [batch] */
  uint8_t *data[MAX_FIELDS]; /* [batch] samples */
} slot;

struct pg_loader {
  pg_loader_options options;
  pg_field fields[MAX_FIELDS];
  int n_fields;
  pg_feed *feeds[MAX_FIELDS]; /* on the way to a device with queues */
  pg_order order;
  slot slots[MAX_DEPTH];
  bool ready;        /* slots have memory and threads run */
  int64_t next_step; /* what pg_loader_next gives */
  int64_t fill_step; /* the next step to give a slot to */
  int busy;          /* workers outside the mutex */
  bool paused, stop;
  pthread_mutex_t mutex;
  pthread_cond_t work, change; /* something to fill; a slot became ready or a worker returned */
  pthread_t threads[MAX_THREADS];
  int n_threads;
};

/* ---- making and unmaking ---- */

pg_status pg_loader_new(pg_loader **out, const pg_loader_options *given) {
  *out = NULL;
  pg_loader_options o = *given;
  if (o.stride == 0) o.stride = o.batch;
  if (o.count < 1 || o.count > UINT32_MAX)
    return pg_error(PG_ERROR_ARGUMENT, "loader: %lld samples; 1 to 4294967295 are possible", (long long)o.count);
  if (o.batch < 1 || o.first < 0 || o.stride < o.first + o.batch)
    return pg_error(PG_ERROR_ARGUMENT, "loader: a batch of %lld from position %lld of a step of %lld",
                    (long long)o.batch, (long long)o.first, (long long)o.stride);
  if (o.threads < 0 || o.threads > MAX_THREADS || o.depth < 1 || o.depth > MAX_DEPTH || o.crop_padding < 0)
    return pg_error(PG_ERROR_ARGUMENT, "loader: %d threads (0 to %d), depth %d (1 to %d), crop padding %d (0 or more)",
                    o.threads, MAX_THREADS, o.depth, MAX_DEPTH, o.crop_padding);
  pg_loader *l = pg_host_calloc(1, sizeof *l);
  if (!l) return pg_error(PG_ERROR_MEMORY, "loader: out of memory");
  l->options = o;
  l->order.epoch = -1;
  pthread_mutex_init(&l->mutex, NULL);
  pthread_cond_init(&l->work, NULL);
  pthread_cond_init(&l->change, NULL);
  *out = l;
  return PG_OK;
}

static int64_t slot_bytes(const pg_loader *l, int field) { return l->options.batch * l->fields[field].sample_bytes; }

void pg_loader_free(pg_loader *l) {
  if (!l) return;
  pthread_mutex_lock(&l->mutex);
  l->stop = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->mutex);
  for (int k = 0; k < l->n_threads; k++) pthread_join(l->threads[k], NULL);
  for (int s = 0; s < l->options.depth; s++) {
    for (int f = 0; f < l->n_fields; f++)
      pg_memory_release(l->slots[s].data[f], PG_CPU, PG_PURPOSE_DATA, slot_bytes(l, f));
    pg_host_free(l->slots[s].indices);
  }
  for (int f = 0; f < l->n_fields; f++) {
    pg_feed_free(l->feeds[f]);
    pg_field_free(&l->fields[f]);
  }
  pg_order_free(&l->order);
  pthread_cond_destroy(&l->change);
  pthread_cond_destroy(&l->work);
  pthread_mutex_destroy(&l->mutex);
  pg_host_free(l);
}

/* ---- fields ---- */

/* The place of a field to come, or NULL after pg_error(). */
static pg_field *next_field(pg_loader *l) {
  if (l->ready) pg_error(PG_ERROR_ARGUMENT, "loader: fields are added before the first batch");
  else if (l->n_fields == MAX_FIELDS) pg_error(PG_ERROR_ARGUMENT, "loader: more than %d fields", MAX_FIELDS);
  else return &l->fields[l->n_fields];
  return NULL;
}

static pg_status keep_field(pg_loader *l, pg_status status) {
  pg_field *field = &l->fields[l->n_fields];
  if (!status && field->augment && (field->view.dtype != PG_UINT8 || field->view.ndim != 3))
    status =
        pg_error(PG_ERROR_ARGUMENT, "loader: an augmented field is uint8 [H,W,C], not %s", pg_shape_text(&field->view));
  if (status) {
    pg_field_free(field);
    memset(field, 0, sizeof *field);
    return status;
  }
  field->wanted = true;
  l->n_fields++;
  return PG_OK;
}

pg_status pg_loader_add_tensor(pg_loader *l, pg_tensor *data, int augment) {
  pg_field *field = next_field(l);
  return field ? keep_field(l, pg_field_tensor(field, l->options.count, data, augment)) : PG_ERROR_ARGUMENT;
}

pg_status pg_loader_add_file(pg_loader *l, const char *path, int64_t offset, int dtype, int ndim, const int64_t *shape,
                             int augment) {
  pg_field *field = next_field(l);
  if (!field) return PG_ERROR_ARGUMENT;
  pg_status status = pg_field_shape(field, dtype, ndim, shape, augment);
  if (!status) status = pg_field_file(field, l->options.count, path, offset);
  return keep_field(l, status);
}

pg_status pg_loader_add_mapped(pg_loader *l, const char *path, int64_t offset, int64_t stride, int64_t mirrored,
                               uint32_t seed, int dtype, int ndim, const int64_t *shape) {
  pg_field *field = next_field(l);
  if (!field) return PG_ERROR_ARGUMENT;
  pg_status status = pg_field_shape(field, dtype, ndim, shape, 0);
  if (!status) status = pg_field_mapped(field, l->options.count, path, offset, stride, mirrored, seed);
  return keep_field(l, status);
}

pg_status pg_loader_add_files(pg_loader *l, const char *folder, const char *names, int64_t names_bytes,
                              const void *header, int64_t header_bytes, int dtype, int ndim, const int64_t *shape) {
  pg_field *field = next_field(l);
  if (!field) return PG_ERROR_ARGUMENT;
  pg_status status = pg_field_shape(field, dtype, ndim, shape, 0);
  if (!status) status = pg_field_names(field, l->options.count, folder, names, names_bytes);
  if (!status) status = pg_field_header(field, header, header_bytes);
  return keep_field(l, status);
}

pg_status pg_loader_add_pictures(pg_loader *l, const char *folder, const char *names, int64_t names_bytes, int64_t height,
                            int64_t width, int resize, int augment) {
  pg_field *field = next_field(l);
  if (!field) return PG_ERROR_ARGUMENT;
  int64_t shape[3] = {height, width, 3};
  pg_status status = pg_field_shape(field, PG_UINT8, 3, shape, augment);
  if (!status) status = pg_field_names(field, l->options.count, folder, names, names_bytes);
  if (!status && (resize < PG_RESIZE_NONE || resize > PG_RESIZE_CROP || (resize == PG_RESIZE_CROP && height != width)))
    status = pg_error(PG_ERROR_ARGUMENT, "loader: pictures of %lldx%lld, resized by rule %d", (long long)width,
                      (long long)height, resize);
  field->kind = PG_FIELD_PICTURES;
  field->resize = resize;
  return keep_field(l, status);
}

static pg_status check_number(const pg_loader *l, int field) {
  if (field >= 0 && field < l->n_fields && !l->ready) return PG_OK;
  return pg_error(PG_ERROR_ARGUMENT, l->ready ? "loader: field %d of %d, after the first batch" : "loader: field %d of %d",
                  field, l->n_fields);
}

pg_status pg_loader_archives(pg_loader *l, int field, const char *archives, int64_t archives_bytes, int n,
                             const pg_place *places) {
  pg_status status = check_number(l, field);
  if (status) return status;
  return pg_field_archives(&l->fields[field], l->options.count, archives, archives_bytes, n, places);
}

pg_status pg_loader_mirrored(pg_loader *l, int field, const char *folder, const pg_place *places) {
  pg_status status = check_number(l, field);
  return status ? status : pg_field_mirrored(&l->fields[field], l->options.count, folder, places);
}

pg_status pg_loader_below(pg_loader *l, int field, int64_t below, const char *what) {
  if (field < 0 || field >= l->n_fields)
    return pg_error(PG_ERROR_ARGUMENT, "loader: field %d of %d", field, l->n_fields);
  return pg_field_below(&l->fields[field], below, what);
}

/* ---- filling slots; the mutex is held but in fill_samples ---- */

/* Position of a step's k-th sample in the endless sequence. */
static int64_t position(const pg_loader *l, int64_t step, int64_t k) {
  return step * l->options.stride + l->options.first + k;
}

/* Gives the next step to its slot if that slot is free. */
static bool open_slot(pg_loader *l) {
  slot *s = &l->slots[l->fill_step % l->options.depth];
  if (s->state != SLOT_EMPTY) return false;
  s->state = SLOT_FILLING;
  s->step = l->fill_step++;
  s->taken = s->done = 0;
  s->status = PG_OK;
  for (int64_t k = 0; k < l->options.batch && !s->status; k++)
    s->status = pg_order_at(&l->order, &l->options, position(l, s->step, k), &s->indices[k]);
  if (s->status) {
    snprintf(s->message, sizeof s->message, "%s", pg_last_error());
    s->taken = s->done = l->options.batch;
    s->state = SLOT_READY;
    pthread_cond_broadcast(&l->change);
  }
  return true;
}

/* The oldest slot with samples that nobody has taken, or NULL. */
static slot *slot_with_work(pg_loader *l) {
  for (int64_t step = l->next_step; step < l->fill_step; step++) {
    slot *s = &l->slots[step % l->options.depth];
    if (s->state == SLOT_FILLING && s->taken < l->options.batch) return s;
  }
  return NULL;
}

static pg_status fill_samples(const pg_loader *l, const slot *s, int64_t begin, int64_t end) {
  pg_status status = PG_OK;
  for (int64_t k = begin; k < end && !status; k++) {
    pg_augmentation a = pg_augmentation_at(&l->options, position(l, s->step, k));
    for (int f = 0; f < l->n_fields && !status; f++) {
      const pg_field *field = &l->fields[f];
      if (field->wanted) status = pg_field_sample(field, s->indices[k], &a, s->data[f] + k * field->sample_bytes);
    }
  }
  return status;
}

/* Samples that a worker takes at once: many where they are copied, one where they are decoded. */
static int64_t chunk_size(const pg_loader *l) {
  for (int f = 0; f < l->n_fields; f++)
    if (l->fields[f].wanted && l->fields[f].kind >= PG_FIELD_FILES) return 1;
  return CHUNK;
}

/* Takes a chunk of some slot and fills it. False if there is nothing to do. */
static bool work_once(pg_loader *l) {
  if (l->paused) return false;
  slot *s = slot_with_work(l);
  if (!s && l->fill_step - l->next_step < l->options.depth && open_slot(l)) s = slot_with_work(l);
  if (!s) return false;
  int64_t begin = s->taken, end = begin + chunk_size(l);
  if (end > l->options.batch) end = l->options.batch;
  s->taken = end;
  l->busy++;
  pthread_mutex_unlock(&l->mutex);
  pg_status status = fill_samples(l, s, begin, end);
  pthread_mutex_lock(&l->mutex);
  l->busy--;
  if (status && !s->status) {
    s->status = status;
    snprintf(s->message, sizeof s->message, "%s", pg_last_error());
  }
  s->done += end - begin;
  if (s->done == l->options.batch) s->state = SLOT_READY;
  if (s->state == SLOT_READY || l->paused) pthread_cond_broadcast(&l->change);
  return true;
}

static void *worker(void *argument) {
  pg_loader *l = argument;
  pthread_mutex_lock(&l->mutex);
  while (!l->stop)
    if (!work_once(l)) pthread_cond_wait(&l->work, &l->mutex);
  pthread_mutex_unlock(&l->mutex);
  return NULL;
}

/* ---- the consumer's side ---- */

/* Memory and threads, at the first batch. */
static pg_status make_ready(pg_loader *l) {
  if (l->ready) return PG_OK;
  if (l->n_fields == 0) return pg_error(PG_ERROR_ARGUMENT, "loader: it has no fields");
  for (int d = 0; d < l->options.depth; d++) {
    slot *s = &l->slots[d];
    if (!s->indices) s->indices = pg_host_calloc((size_t)l->options.batch, sizeof *s->indices);
    if (!s->indices) return pg_error(PG_ERROR_MEMORY, "loader: out of memory");
    for (int f = 0; f < l->n_fields; f++) {
      if (s->data[f]) continue;
      pg_status status = pg_memory_allocate((void **)&s->data[f], PG_CPU, PG_PURPOSE_DATA, slot_bytes(l, f));
      if (status) return status;
    }
  }
  l->ready = true;
  while (l->n_threads < l->options.threads) {
    if (pthread_create(&l->threads[l->n_threads], NULL, worker, l)) break; /* fewer threads do the same work */
    l->n_threads++;
  }
  return PG_OK;
}

/* Forgets all batches made ahead. The mutex is held. */
static void restart(pg_loader *l, int64_t step) {
  l->paused = true;
  while (l->busy > 0) pthread_cond_wait(&l->change, &l->mutex);
  l->paused = false;
  for (int s = 0; s < l->options.depth; s++) l->slots[s].state = SLOT_EMPTY;
  l->next_step = l->fill_step = step;
  pthread_cond_broadcast(&l->work);
}

pg_status pg_loader_seek(pg_loader *l, int64_t step) {
  if (step < 0 || step > INT64_MAX / 2 / l->options.stride)
    return pg_error(PG_ERROR_ARGUMENT, "loader: step %lld; expected at least 0", (long long)step);
  pthread_mutex_lock(&l->mutex);
  restart(l, step);
  pthread_mutex_unlock(&l->mutex);
  return PG_OK;
}

pg_status pg_loader_want(pg_loader *l, int field, int wanted) {
  if (field < 0 || field >= l->n_fields)
    return pg_error(PG_ERROR_ARGUMENT, "loader: field %d of %d", field, l->n_fields);
  pthread_mutex_lock(&l->mutex);
  restart(l, l->next_step);
  l->fields[field].wanted = wanted;
  pthread_mutex_unlock(&l->mutex);
  return PG_OK;
}

/* A tensor that a batch of `field` fits into. */
static pg_status check_target(const pg_loader *l, int number, const pg_tensor *t) {
  const pg_field *field = &l->fields[number];
  const pg_view *v = pg_tensor_info(t);
  bool fits = v->dtype == field->view.dtype && v->ndim == field->view.ndim + 1 && v->shape[0] == l->options.batch;
  for (int d = 0; fits && d < field->view.ndim; d++) fits = v->shape[d + 1] == field->view.shape[d];
  if (fits) return PG_OK;
  return pg_error(PG_ERROR_ARGUMENT,
                  "loader: field %d is %lld samples %s %s, the tensor is %s %s", number, (long long)l->options.batch,
                  pg_dtype_name(field->view.dtype), pg_shape_text(&field->view), pg_dtype_name(v->dtype),
                  pg_shape_text(v));
}

static pg_status check_targets(const pg_loader *l, int fields, pg_tensor *const *batch) {
  if (fields != l->n_fields)
    return pg_error(PG_ERROR_ARGUMENT, "loader: %d tensors for %d fields", fields, l->n_fields);
  for (int f = 0; f < fields; f++) {
    if (!batch[f] && !l->fields[f].wanted) continue;
    if (!batch[f]) return pg_error(PG_ERROR_ARGUMENT, "loader: field %d is wanted but has no tensor", f);
    if (!l->fields[f].wanted) return pg_error(PG_ERROR_ARGUMENT, "loader: field %d was not wanted", f);
    pg_status status = check_target(l, f, batch[f]);
    if (status) return status;
  }
  return PG_OK;
}

/* Waits until the next step's slot is ready, working along where there are no threads. The mutex is held. */
static slot *wait_ready(pg_loader *l) {
  for (;;) {
    slot *s = &l->slots[l->next_step % l->options.depth];
    if (l->fill_step > l->next_step && s->state == SLOT_READY) return s;
    if (l->n_threads > 0) pthread_cond_wait(&l->change, &l->mutex);
    else work_once(l);
  }
}

/* One field of a batch to its tensor; on a device with queues, while that computes. */
static pg_status copy_field(pg_loader *l, int field, const void *data, pg_tensor *to) {
  int device = pg_tensor_device(to);
  if (!pg_device(device)->queues) return pg_tensor_write(to, data, slot_bytes(l, field));
  if (!pg_view_is_contiguous(pg_tensor_info(to)))
    return pg_error(PG_ERROR_ARGUMENT, "loader: the tensor of field %d is not contiguous", field);
  pg_status status = l->feeds[field] ? PG_OK : pg_feed_new(&l->feeds[field], device, slot_bytes(l, field));
  return status ? status : pg_feed_put(l->feeds[field], pg_tensor_info(to)->data, data);
}

static pg_status copy_out(pg_loader *l, const slot *s, pg_tensor *const *batch, pg_tensor *indices) {
  pg_status status = PG_OK;
  for (int f = 0; f < l->n_fields && !status; f++)
    if (batch[f]) status = copy_field(l, f, s->data[f], batch[f]);
  if (!status && indices) status = pg_tensor_write(indices, s->indices, 8 * l->options.batch);
  return status;
}

pg_status pg_loader_next(pg_loader *l, int fields, pg_tensor *const *batch, pg_tensor *indices, int64_t *step) {
  pg_status status = make_ready(l);
  if (!status) status = check_targets(l, fields, batch);
  if (status) return status;
  pthread_mutex_lock(&l->mutex);
  slot *s = wait_ready(l);
  pthread_mutex_unlock(&l->mutex);
  if (s->status) return pg_error(s->status, "%s", s->message); /* a ready slot is this thread's alone */
  status = copy_out(l, s, batch, indices);
  if (status) return status;
  if (step) *step = s->step;
  pthread_mutex_lock(&l->mutex);
  s->state = SLOT_EMPTY;
  l->next_step++;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->mutex);
  return PG_OK;
}
