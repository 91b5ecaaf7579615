/* Executables: a list of kernel calls over one arena and external slots. Built once, run at every step. */
#include <string.h>

#include "internal.h"

typedef struct value {
  pg_view view;
  int slot; /* < 0: arena */
  int64_t offset;
} value;

typedef struct recorded_call {
  pg_call call;
  const pg_kernel_instance *instance;
  int kernel;
  int values[PG_MAX_VIEWS];
  int64_t scratch_offset;
} recorded_call;

struct pg_executable {
  int device, purpose;
  char *arena;
  int64_t arena_bytes;
  int n_slots;
  pg_tensor **slots;
  bool rebind;
  value *values;
  int n_values, room_values;
  recorded_call *calls;
  int n_calls, room_calls;
};

pg_status pg_executable_new(pg_executable **out, int device, int64_t arena_bytes, int n_slots, int purpose) {
  *out = NULL;
  pg_executable *e = pg_host_calloc(1, sizeof *e);
  if (!e) return pg_error(PG_ERROR_MEMORY, "executable: out of memory");
  e->device = device;
  e->purpose = purpose;
  e->arena_bytes = arena_bytes;
  e->n_slots = n_slots;
  e->slots = pg_host_calloc((size_t)n_slots, sizeof *e->slots);
  void *arena = NULL;
  pg_status status = e->slots ? pg_memory_allocate(&arena, device, purpose, arena_bytes)
                              : pg_error(PG_ERROR_MEMORY, "executable: out of memory");
  e->arena = arena;
  if (status != PG_OK) {
    pg_executable_free(e);
    return status;
  }
  *out = e;
  return PG_OK;
}

void pg_executable_free(pg_executable *e) {
  if (!e) return;
  for (int s = 0; e->slots && s < e->n_slots; s++)
    if (e->slots[s]) pg_tensor_release(e->slots[s]);
  pg_memory_release(e->arena, e->device, e->purpose, e->arena_bytes);
  pg_host_free(e->slots);
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
  c->call.n = n;
  for (int k = 0; k < n; k++) {
    c->values[k] = values[k];
    if (values[k] >= e->n_values) return pg_error(PG_ERROR_ARGUMENT, "executable: value %d of %d", values[k], e->n_values);
  }
  memcpy(c->call.i, ints, sizeof c->call.i);
  memcpy(c->call.f, floats, sizeof c->call.f);
  c->call.scratch_bytes = scratch_bytes;
  c->scratch_offset = scratch_offset;
  e->n_calls++;
  e->rebind = true;
  return PG_OK;
}

pg_status pg_executable_bind(pg_executable *e, int slot, pg_tensor *t) {
  if (slot < 0 || slot >= e->n_slots) return pg_error(PG_ERROR_ARGUMENT, "bind: slot %d of %d", slot, e->n_slots);
  if (e->slots[slot] == t) return PG_OK;
  if (!pg_view_is_contiguous(pg_tensor_info(t))) return pg_error(PG_ERROR_ARGUMENT, "bind: the tensor is not contiguous");
  if (pg_tensor_device(t) != e->device)
    return pg_error(PG_ERROR_ARGUMENT, "bind: the tensor is on %s, the program runs on %s", pg_device(pg_tensor_device(t))->name,
                    pg_device(e->device)->name);
  const pg_view *given = pg_tensor_info(t);
  int64_t room = pg_numel(given) * pg_dtype_bytes(given->dtype);
  for (int k = 0; k < e->n_values; k++) {
    value *v = &e->values[k];
    if (v->slot == slot && v->offset + reach_bytes(&v->view) > room)
      return pg_error(PG_ERROR_ARGUMENT, "bind: slot %d needs %lld bytes, the tensor %s has %lld", slot,
                      (long long)(v->offset + reach_bytes(&v->view)), pg_shape_text(given), (long long)room);
  }
  pg_tensor_retain(t);
  if (e->slots[slot]) pg_tensor_release(e->slots[slot]);
  e->slots[slot] = t;
  e->rebind = true;
  return PG_OK;
}

/* Writes the slots' addresses into every call that reads them. */
static pg_status resolve(pg_executable *e) {
  for (int k = 0; k < e->n_values; k++) {
    value *v = &e->values[k];
    if (v->slot < 0) continue;
    if (!e->slots[v->slot]) return pg_error(PG_ERROR_ARGUMENT, "run: nothing is bound to slot %d", v->slot);
    v->view.data = (char *)pg_tensor_info(e->slots[v->slot])->data + v->offset;
  }
  for (int c = 0; c < e->n_calls; c++) {
    recorded_call *r = &e->calls[c];
    for (int k = 0; k < r->call.n; k++) {
      if (r->values[k] >= 0) r->call.v[k] = e->values[r->values[k]].view;
      else r->call.v[k].ndim = -1;
    }
    r->call.scratch = r->call.scratch_bytes ? e->arena + r->scratch_offset : NULL;
  }
  e->rebind = false;
  return PG_OK;
}

pg_status pg_executable_run(pg_executable *e) {
  pg_status status = e->rebind ? resolve(e) : PG_OK;
  for (int c = 0; c < e->n_calls && status == PG_OK; c++) status = e->calls[c].instance->run(&e->calls[c].call);
  return status;
}

pg_status pg_executable_profile(pg_executable *e, double *seconds) {
  pg_status status = e->rebind ? resolve(e) : PG_OK;
  for (int c = 0; c < e->n_calls && status == PG_OK; c++) {
    double start = pg_clock_seconds();
    status = e->calls[c].instance->run(&e->calls[c].call);
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
  if (instance->scratch) {
    call.scratch_bytes = instance->scratch(&call);
    if (call.scratch_bytes < 0) return PG_ERROR_ARGUMENT;
    if (call.scratch_bytes > 0) {
      pg_status status = pg_memory_allocate(&call.scratch, device, PG_PURPOSE_OTHER, call.scratch_bytes);
      if (status) return status;
    }
  }
  pg_status status = instance->run(&call);
  if (call.scratch) pg_memory_release(call.scratch, device, PG_PURPOSE_OTHER, call.scratch_bytes);
  return status;
}
