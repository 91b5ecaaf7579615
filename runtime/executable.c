/* Executables: a list of kernel calls over one arena and external slots. Built once, run at every step; on a device with
 * queues captured once into a graph, and replayed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct value {
  pg_view view;
  int slot; /* < 0: arena */
  int64_t offset;
} value;

typedef struct recorded_call {
  const pg_kernel_instance *instance;
  int kernel, n;
  int values[PG_MAX_VIEWS]; /* their numbers; -1: absent */
  int64_t i[PG_MAX_ATTRIBUTES];
  double f[PG_MAX_ATTRIBUTES];
  int64_t scratch_offset, scratch_bytes;
} recorded_call;

struct pg_executable {
  int device, purpose;
  const pg_queue_ops *queues; /* NULL: a call is done when it returns */
  char *arena;
  int64_t arena_bytes;
  int n_slots;
  pg_tensor **slots; /* what the calls read and write */
  pg_tensor **fed;   /* with queues: what is copied to slots[s] before a run, or NULL */
  bool rebind;
  bool ran;          /* once, call by call: kernels are loaded, and a call that fails has been named */
  void *graph;       /* the calls as captured; NULL: not yet, or an address has changed since */
  value *values;
  int n_values, room_values;
  recorded_call *calls;
  int n_calls, room_calls;
};

/* On devices with queues, since the library was loaded. */
static pg_queue_counts counts;

void pg_queue_counted(pg_queue_counts *out) { *out = counts; }
void pg_queue_served(int theirs) { (*(theirs ? &counts.theirs : &counts.ours_instead))++; }

pg_status pg_executable_new(pg_executable **out, int device, int64_t arena_bytes, int n_slots, int purpose) {
  *out = NULL;
  const pg_device_ops *ops = pg_device(device);
  if (!ops) return PG_ERROR_DEVICE;
  pg_executable *e = pg_host_calloc(1, sizeof *e);
  if (!e) return pg_error(PG_ERROR_MEMORY, "executable: out of memory");
  e->device = device;
  e->queues = ops->queues;
  e->purpose = purpose;
  e->arena_bytes = arena_bytes;
  e->n_slots = n_slots;
  e->slots = pg_host_calloc((size_t)n_slots, sizeof *e->slots);
  e->fed = pg_host_calloc((size_t)n_slots, sizeof *e->fed);
  void *arena = NULL;
  pg_status status = e->slots && e->fed ? pg_memory_allocate(&arena, device, purpose, arena_bytes)
                                        : pg_error(PG_ERROR_MEMORY, "executable: out of memory");
  e->arena = arena;
  if (status != PG_OK) {
    pg_executable_free(e);
    return status;
  }
  *out = e;
  return PG_OK;
}

static void drop_graph(pg_executable *e) {
  if (e->graph) e->queues->graph_free(e->graph);
  e->graph = NULL;
}

void pg_executable_free(pg_executable *e) {
  if (!e) return;
  if (e->queues) e->queues->synchronise(); /* what runs still reads the arena and the graph */
  drop_graph(e);
  for (int s = 0; s < e->n_slots; s++) {
    if (e->slots) pg_tensor_release(e->slots[s]);
    if (e->fed) pg_tensor_release(e->fed[s]);
  }
  pg_memory_release(e->arena, e->device, e->purpose, e->arena_bytes);
  pg_host_free(e->slots);
  pg_host_free(e->fed);
  pg_host_free(e->values);
  pg_host_free(e->calls);
  pg_host_free(e);
}

/* Makes room for one more element of a growing array. */
static pg_status grow(void **array, int used, int *room, size_t size) {
  if (used < *room) return PG_OK;
  int wanted = *room ? *room * 2 : 64;
  void *bigger = pg_host_calloc((size_t)wanted, size);
  if (!bigger) return pg_error(PG_ERROR_MEMORY, "executable: out of memory");
  if (used) memcpy(bigger, *array, (size_t)used * size);
  pg_host_free(*array);
  *array = bigger;
  *room = wanted;
  return PG_OK;
}

static int64_t reach_bytes(const pg_view *v) {
  int64_t last = 0;
  for (int d = 0; d < v->ndim; d++) {
    if (v->shape[d] == 0) return 0;
    last += (v->shape[d] - 1) * v->stride[d];
  }
  return (last + 1) * pg_dtype_bytes(v->dtype);
}

pg_status pg_executable_value(pg_executable *e, int slot, int64_t byte_offset, int dtype, int ndim, const int64_t *shape,
                              const int64_t *stride, int *number) {
  if (ndim < 0 || ndim > PG_MAX_DIMS || dtype < 0 || dtype >= PG_DTYPES)
    return pg_error(PG_ERROR_ARGUMENT, "executable: a value of dtype %d with %d dimensions", dtype, ndim);
  value v = {.slot = slot, .offset = byte_offset};
  v.view.dtype = dtype;
  v.view.ndim = ndim;
  for (int d = 0; d < ndim; d++) {
    v.view.shape[d] = shape[d];
    v.view.stride[d] = stride[d];
  }
  if (slot >= e->n_slots) return pg_error(PG_ERROR_ARGUMENT, "executable: slot %d of %d", slot, e->n_slots);
  if (slot < 0) {
    if (byte_offset < 0 || byte_offset + reach_bytes(&v.view) > e->arena_bytes)
      return pg_error(PG_ERROR_ARGUMENT, "executable: value %s at byte %lld lies outside an arena of %lld bytes",
                      pg_shape_text(&v.view), (long long)byte_offset, (long long)e->arena_bytes);
    v.view.data = e->arena + byte_offset;
  }
  pg_status status = grow((void **)&e->values, e->n_values, &e->room_values, sizeof *e->values);
  if (status) return status;
  e->values[e->n_values] = v;
  *number = e->n_values++;
  return PG_OK;
}

pg_status pg_executable_call(pg_executable *e, int kernel, int dtype, int n, const int *values, const int64_t *ints,
                             const double *floats, int64_t scratch_offset, int64_t scratch_bytes) {
  const pg_kernel_instance *instance = pg_kernel_instance_find(kernel, e->device, dtype);
  if (!instance) return PG_ERROR_UNSUPPORTED;
  if (n < 0 || n > PG_MAX_VIEWS) return pg_error(PG_ERROR_ARGUMENT, "executable: a call with %d views", n);
  if (scratch_bytes < 0 || scratch_offset < 0 || scratch_offset + scratch_bytes > e->arena_bytes)
    return pg_error(PG_ERROR_ARGUMENT, "executable: scratch of %s lies outside the arena", pg_kernel_name(kernel));
  pg_status status = grow((void **)&e->calls, e->n_calls, &e->room_calls, sizeof *e->calls);
  if (status) return status;
  recorded_call *c = &e->calls[e->n_calls];
  memset(c, 0, sizeof *c);
  c->instance = instance;
  c->kernel = kernel;
  c->n = n;
  for (int k = 0; k < n; k++) {
    c->values[k] = values[k];
    if (values[k] >= e->n_values) return pg_error(PG_ERROR_ARGUMENT, "executable: value %d of %d", values[k], e->n_values);
  }
  memcpy(c->i, ints, sizeof c->i);
  memcpy(c->f, floats, sizeof c->f);
  c->scratch_offset = scratch_offset;
  c->scratch_bytes = scratch_bytes;
  e->n_calls++;
  e->rebind = true;
  return PG_OK;
}

/* An error unless the tensor can stand in a slot. */
static pg_status check_slot(const pg_executable *e, int slot, const pg_tensor *t) {
  if (slot < 0 || slot >= e->n_slots) return pg_error(PG_ERROR_ARGUMENT, "bind: slot %d of %d", slot, e->n_slots);
  const pg_view *given = pg_tensor_info(t);
  if (!pg_view_is_contiguous(given)) return pg_error(PG_ERROR_ARGUMENT, "bind: the tensor is not contiguous");
  if (pg_tensor_device(t) != e->device)
    return pg_error(PG_ERROR_ARGUMENT, "bind: the tensor is on %s, the program runs on %s",
                    pg_device_name(pg_tensor_device(t)), pg_device_name(e->device));
  int64_t room = pg_numel(given) * pg_dtype_bytes(given->dtype);
  for (int k = 0; k < e->n_values; k++) {
    const value *v = &e->values[k];
    if (v->slot == slot && v->offset + reach_bytes(&v->view) > room)
      return pg_error(PG_ERROR_ARGUMENT, "bind: slot %d needs %lld bytes, the tensor %s has %lld", slot,
                      (long long)(v->offset + reach_bytes(&v->view)), pg_shape_text(given), (long long)room);
  }
  return PG_OK;
}

static void replace(pg_tensor **place, pg_tensor *t) {
  if (t) pg_tensor_retain(t);
  pg_tensor_release(*place);
  *place = t;
}

pg_status pg_executable_bind(pg_executable *e, int slot, pg_tensor *t) {
  if (slot >= 0 && slot < e->n_slots && e->slots[slot] == t) return PG_OK;
  pg_status status = check_slot(e, slot, t);
  if (status) return status;
  replace(&e->fed[slot], NULL);
  replace(&e->slots[slot], t);
  e->rebind = true;
  return PG_OK;
}

static const void *data_of(const pg_tensor *t) { return pg_tensor_info(t)->data; }

pg_status pg_executable_feed(pg_executable *e, int slot, pg_tensor *t) {
  if (!e->queues || slot < 0 || slot >= e->n_slots || !e->slots[slot]) return pg_executable_bind(e, slot, t);
  if (!e->fed[slot] && data_of(e->slots[slot]) == data_of(t)) { /* perhaps another handle of the same memory */
    if (e->slots[slot] != t) replace(&e->slots[slot], t);
    return PG_OK;
  }
  pg_status status = check_slot(e, slot, t);
  if (status) return status;
  if (!e->fed[slot]) { /* a place of the executable's own, from now on */
    const pg_view *v = pg_tensor_info(t);
    pg_tensor *place;
    status = pg_tensor_new(&place, e->device, e->purpose, v->dtype, v->ndim, v->shape);
    if (status) return status;
    pg_tensor_release(e->slots[slot]);
    e->slots[slot] = place;
    e->rebind = true;
  }
  replace(&e->fed[slot], t);
  return PG_OK;
}

/* Writes the slots' addresses into the values that lie there. */
static pg_status resolve(pg_executable *e) {
  for (int k = 0; k < e->n_values; k++) {
    value *v = &e->values[k];
    if (v->slot < 0) continue;
    if (!e->slots[v->slot]) return pg_error(PG_ERROR_ARGUMENT, "run: nothing is bound to slot %d", v->slot);
    v->view.data = (char *)pg_tensor_info(e->slots[v->slot])->data + v->offset;
  }
  drop_graph(e);
  e->rebind = false;
  return PG_OK;
}

/* Gives a call what its device has for kernels. */
static void equip(pg_call *call, const pg_queue_ops *queues) {
  call->stream = queues ? queues->stream[PG_QUEUE_COMPUTE] : NULL;
  call->services = queues ? queues->services : NULL;
}

/* A recorded call as its kernel gets it. */
static void assemble(const pg_executable *e, const recorded_call *r, pg_call *call) {
  call->n = r->n;
  for (int k = 0; k < r->n; k++) {
    if (r->values[k] >= 0) call->v[k] = e->values[r->values[k]].view;
    else call->v[k].data = NULL, call->v[k].ndim = -1;
  }
  memcpy(call->i, r->i, sizeof call->i);
  memcpy(call->f, r->f, sizeof call->f);
  call->scratch = r->scratch_bytes ? e->arena + r->scratch_offset : NULL;
  call->scratch_bytes = r->scratch_bytes;
  equip(call, e->queues);
}

/* A device's error says nothing of the op: puts its name and shapes in front. */
static pg_status blame(const char *kernel, const pg_call *call, pg_status status) {
  if (status != PG_ERROR_DEVICE) return status;
  char message[512], shapes[320] = "";
  snprintf(message, sizeof message, "%s", pg_last_error());
  size_t used = 0;
  for (int k = 0; k < call->n && used < sizeof shapes - 100; k++)
    if (call->v[k].ndim >= 0)
      used += (size_t)snprintf(shapes + used, sizeof shapes - used, "%s%s", used ? ", " : "", pg_shape_text(&call->v[k]));
  return pg_error(status, "%s of %s: %s", kernel, shapes, message);
}

/* PERIGEE_CUDA_CHECK=1: no graphs, and a wait after every call, so that the one that fails is named. */
static bool checking(void) {
  const char *wish = getenv("PERIGEE_CUDA_CHECK");
  return wish && *wish && strcmp(wish, "0") != 0;
}

static pg_status run_call(const pg_executable *e, int number, bool wait) {
  const recorded_call *r = &e->calls[number];
  pg_call call;
  assemble(e, r, &call);
  pg_status status = r->instance->run(&call);
  if (wait && status == PG_OK) status = e->queues->synchronise();
  return blame(pg_kernel_name(r->kernel), &call, status);
}

static pg_status run_calls(const pg_executable *e) {
  const bool wait = e->queues && checking();
  pg_status status = PG_OK;
  for (int c = 0; c < e->n_calls && status == PG_OK; c++) {
    if (!e->queues) pg_waiting_watch();
    status = run_call(e, c, wait);
  }
  return status;
}

static pg_status capture(pg_executable *e) {
  pg_status status = e->queues->capture_begin();
  if (status) return status;
  counts.captures++;
  status = run_calls(e);
  if (status) { /* its message is the one to keep */
    e->queues->capture_end(NULL);
    return status;
  }
  return e->queues->capture_end(&e->graph);
}

static pg_status run_graph(pg_executable *e) {
  pg_status status = e->graph ? PG_OK : capture(e);
  if (status) return status;
  counts.launches++;
  return e->queues->graph_run(e->graph);
}

/* Addresses in place, inputs where they are read. */
static pg_status make_ready(pg_executable *e) {
  pg_status status = e->rebind ? resolve(e) : PG_OK;
  for (int s = 0; s < e->n_slots && status == PG_OK; s++) {
    if (!e->fed[s]) continue;
    const pg_view *v = pg_tensor_info(e->slots[s]);
    status = e->queues->copy(PG_QUEUE_COMPUTE, v->data, data_of(e->fed[s]), pg_numel(v) * pg_dtype_bytes(v->dtype));
  }
  return status;
}

pg_status pg_executable_run(pg_executable *e) {
  pg_status status = make_ready(e);
  if (status) return status;
  if (e->queues && e->ran && e->n_calls > 0 && !checking()) return run_graph(e);
  if (e->queues) counts.calls += e->n_calls;
  status = run_calls(e);
  e->ran = status == PG_OK;
  return status;
}

/* A queue's own clock around every call. */
static pg_status profile_queue(pg_executable *e, void **events, double *seconds) {
  pg_status status = PG_OK;
  for (int c = 0; c <= e->n_calls && status == PG_OK; c++) status = e->queues->event_new(&events[c]);
  for (int c = 0; c <= e->n_calls && status == PG_OK; c++) {
    status = e->queues->event_record(events[c], PG_QUEUE_COMPUTE);
    if (status == PG_OK && c < e->n_calls) status = run_call(e, c, false);
  }
  if (status == PG_OK) status = e->queues->event_wait(events[e->n_calls]);
  for (int c = 0; c < e->n_calls && status == PG_OK; c++)
    status = e->queues->event_seconds(events[c], events[c + 1], &seconds[c]);
  return status;
}

pg_status pg_executable_profile(pg_executable *e, double *seconds) {
  pg_status status = make_ready(e);
  if (status) return status;
  if (e->queues) {
    void **events = pg_host_calloc((size_t)e->n_calls + 1, sizeof *events);
    if (!events) return pg_error(PG_ERROR_MEMORY, "profile: out of memory");
    status = profile_queue(e, events, seconds);
    for (int c = 0; c <= e->n_calls; c++)
      if (events[c]) e->queues->event_free(events[c]);
    pg_host_free(events);
    return status;
  }
  for (int c = 0; c < e->n_calls && status == PG_OK; c++) {
    double start = pg_clock_seconds();
    status = run_call(e, c, false);
    seconds[c] = pg_clock_seconds() - start;
  }
  return status;
}

int pg_executable_calls(const pg_executable *e) { return e->n_calls; }
int64_t pg_executable_arena_bytes(const pg_executable *e) { return e->arena_bytes; }

/* ---- single calls ---- */

pg_status pg_kernel_plan(int kernel, int device, int dtype, int n, const pg_view *views, const uint8_t *present,
                         const int64_t *ints, const double *floats, int64_t *scratch_bytes) {
  *scratch_bytes = 0;
  const pg_kernel_instance *instance = pg_kernel_instance_find(kernel, device, dtype);
  if (!instance) return PG_ERROR_UNSUPPORTED;
  if (n < 0 || n > PG_MAX_VIEWS) return pg_error(PG_ERROR_ARGUMENT, "%s: %d views", pg_kernel_name(kernel), n);
  if (!instance->scratch) return PG_OK;
  pg_call call;
  memset(&call, 0, sizeof call);
  call.n = n;
  for (int k = 0; k < n; k++) {
    if (present[k]) call.v[k] = views[k];
    else call.v[k].ndim = -1;
  }
  memcpy(call.i, ints, sizeof call.i);
  memcpy(call.f, floats, sizeof call.f);
  equip(&call, pg_device(device)->queues);
  *scratch_bytes = instance->scratch(&call);
  return *scratch_bytes < 0 ? PG_ERROR_ARGUMENT : PG_OK;
}

pg_status pg_kernel_run(int kernel, int device, int dtype, int n, pg_tensor *const *tensors, const int64_t *ints,
                        const double *floats) {
  const pg_kernel_instance *instance = pg_kernel_instance_find(kernel, device, dtype);
  if (!instance) return PG_ERROR_UNSUPPORTED;
  if (n < 0 || n > PG_MAX_VIEWS) return pg_error(PG_ERROR_ARGUMENT, "%s: %d tensors", pg_kernel_name(kernel), n);
  pg_call call;
  memset(&call, 0, sizeof call);
  call.n = n;
  for (int k = 0; k < n; k++) {
    if (!tensors[k]) {
      call.v[k].ndim = -1;
      continue;
    }
    call.v[k] = *pg_tensor_info(tensors[k]);
    if (pg_tensor_device(tensors[k]) != device)
      return pg_error(PG_ERROR_ARGUMENT, "%s: argument %d is on another device", pg_kernel_name(kernel), k + 1);
  }
  memcpy(call.i, ints, sizeof call.i);
  memcpy(call.f, floats, sizeof call.f);
  const pg_queue_ops *queues = pg_device(device)->queues;
  equip(&call, queues);
  if (instance->scratch) {
    call.scratch_bytes = instance->scratch(&call);
    if (call.scratch_bytes < 0) return PG_ERROR_ARGUMENT;
    if (call.scratch_bytes > 0) {
      pg_status status = pg_memory_allocate(&call.scratch, device, PG_PURPOSE_OTHER, call.scratch_bytes);
      if (status) return status;
    }
  }
  if (queues) counts.calls++;
  pg_status status = blame(pg_kernel_name(kernel), &call, instance->run(&call));
  if (call.scratch) pg_memory_release(call.scratch, device, PG_PURPOSE_OTHER, call.scratch_bytes);
  return status;
}
