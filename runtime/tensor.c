/* Tensors: reference-counted views of reference-counted storage. */
#include <stdatomic.h>
#include <string.h>

#include "internal.h"

typedef struct storage {
  void *data;
  int64_t bytes;
  int device, purpose;
  atomic_int references;
} storage;

struct pg_tensor {
  pg_view view;
  storage *storage;
  atomic_int references;
};

bool pg_view_is_contiguous(const pg_view *v) { return pg_contiguous(v); }

void pg_view_pack(pg_view *v) {
  int64_t stride = 1;
  for (int d = v->ndim - 1; d >= 0; d--) {
    v->stride[d] = stride;
    stride *= v->shape[d];
  }
}

/* Checks a shape and returns its number of elements, or -1 after pg_error(). */
static int64_t checked_numel(int dtype, int ndim, const int64_t *shape) {
  if (dtype < 0 || dtype >= PG_DTYPES) {
    pg_error(PG_ERROR_ARGUMENT, "tensor: unknown dtype number %d", dtype);
    return -1;
  }
  if (ndim < 0 || ndim > PG_MAX_DIMS) {
    pg_error(PG_ERROR_ARGUMENT, "tensor: %d dimensions; 0 to %d are possible", ndim, PG_MAX_DIMS);
    return -1;
  }
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] < 0) {
      pg_error(PG_ERROR_ARGUMENT, "tensor: dimension %d has size %lld", d + 1, (long long)shape[d]);
      return -1;
    }
    if (__builtin_mul_overflow(n, shape[d], &n) || n > INT64_MAX / 16) {
      pg_error(PG_ERROR_ARGUMENT, "tensor: the shape has more elements than memory can hold");
      return -1;
    }
  }
  return n;
}

pg_status pg_tensor_new(pg_tensor **out, int device, int purpose, int dtype, int ndim, const int64_t *shape) {
  *out = NULL;
  int64_t n = checked_numel(dtype, ndim, shape);
  if (n < 0) return PG_ERROR_ARGUMENT;
  if (purpose < 0 || purpose >= PG_PURPOSES) return pg_error(PG_ERROR_ARGUMENT, "tensor: unknown purpose number %d", purpose);
  storage *s = pg_host_calloc(1, sizeof *s);
  pg_tensor *t = pg_host_calloc(1, sizeof *t);
  if (!s || !t) {
    pg_host_free(s);
    pg_host_free(t);
    return pg_error(PG_ERROR_MEMORY, "tensor: out of memory");
  }
  s->bytes = n * pg_dtype_bytes(dtype);
  s->device = device;
  s->purpose = purpose;
  pg_status status = pg_memory_allocate(&s->data, device, purpose, s->bytes);
  if (status != PG_OK) {
    pg_host_free(s);
    pg_host_free(t);
    return status;
  }
  atomic_init(&s->references, 1);
  atomic_init(&t->references, 1);
  t->storage = s;
  t->view.data = s->data;
  t->view.dtype = dtype;
  t->view.ndim = ndim;
  for (int d = 0; d < ndim; d++) t->view.shape[d] = shape[d];
  pg_view_pack(&t->view);
  *out = t;
  return PG_OK;
}

pg_status pg_tensor_view(pg_tensor **out, pg_tensor *base, int64_t offset, int dtype, int ndim, const int64_t *shape,
                         const int64_t *stride) {
  *out = NULL;
  int64_t n = checked_numel(dtype, ndim, shape);
  if (n < 0) return PG_ERROR_ARGUMENT;
  int64_t size = pg_dtype_bytes(dtype), last = 0, overflow = 0;
  for (int d = 0; d < ndim; d++) {
    int64_t reach = 0;
    if (stride[d] < 0) overflow = 1;
    overflow |= __builtin_mul_overflow(shape[d] - 1, stride[d], &reach);
    overflow |= __builtin_add_overflow(last, reach, &last);
  }
  int64_t start = (char *)base->view.data - (char *)base->storage->data, shift = 0, end = 0;
  overflow |= __builtin_mul_overflow(offset, size, &shift);
  overflow |= __builtin_add_overflow(start, shift, &start);
  overflow |= __builtin_add_overflow(last, 1, &end);
  overflow |= __builtin_mul_overflow(end, size, &end);
  overflow |= __builtin_add_overflow(end, start, &end);
  if (overflow || start < 0 || (n > 0 && end > base->storage->bytes))
    return pg_error(PG_ERROR_ARGUMENT, "view: it would reach byte %lld of a storage of %lld bytes", (long long)end,
                    (long long)base->storage->bytes);
  pg_tensor *t = pg_host_calloc(1, sizeof *t);
  if (!t) return pg_error(PG_ERROR_MEMORY, "view: out of memory");
  atomic_init(&t->references, 1);
  atomic_fetch_add(&base->storage->references, 1);
  t->storage = base->storage;
  t->view.data = (char *)base->storage->data + start;
  t->view.dtype = dtype;
  t->view.ndim = ndim;
  for (int d = 0; d < ndim; d++) {
    t->view.shape[d] = shape[d];
    t->view.stride[d] = stride[d];
  }
  *out = t;
  return PG_OK;
}

void pg_tensor_retain(pg_tensor *t) { atomic_fetch_add(&t->references, 1); }

void pg_tensor_release(pg_tensor *t) {
  if (!t || atomic_fetch_sub(&t->references, 1) > 1) return;
  storage *s = t->storage;
  if (atomic_fetch_sub(&s->references, 1) == 1) {
    pg_memory_release(s->data, s->device, s->purpose, s->bytes);
    pg_host_free(s);
  }
  pg_host_free(t);
}

const pg_view *pg_tensor_info(const pg_tensor *t) { return &t->view; }
int pg_tensor_device(const pg_tensor *t) { return t->storage->device; }
int64_t pg_tensor_storage_bytes(const pg_tensor *t) { return t->storage->bytes; }

static int64_t view_bytes(const pg_view *v) { return pg_numel(v) * pg_dtype_bytes(v->dtype); }

static pg_status check_transfer(const char *verb, const pg_tensor *t, int64_t bytes) {
  if (!pg_contiguous(&t->view)) return pg_error(PG_ERROR_ARGUMENT, "%s: the tensor is not contiguous", verb);
  if (bytes != view_bytes(&t->view))
    return pg_error(PG_ERROR_ARGUMENT, "%s: %lld bytes for a tensor %s of %lld bytes", verb, (long long)bytes,
                    pg_shape_text(&t->view), (long long)view_bytes(&t->view));
  return PG_OK;
}

pg_status pg_tensor_write(pg_tensor *t, const void *host, int64_t bytes) {
  pg_status status = check_transfer("write", t, bytes);
  return status ? status : pg_device(t->storage->device)->from_host(t->view.data, host, bytes);
}

pg_status pg_tensor_read(const pg_tensor *t, void *host, int64_t bytes) {
  pg_status status = check_transfer("read", t, bytes);
  return status ? status : pg_device(t->storage->device)->to_host(host, t->view.data, bytes);
}

pg_status pg_tensor_copy(pg_tensor *to, const pg_tensor *from) {
  int64_t bytes = view_bytes(&from->view);
  if (to->view.dtype != from->view.dtype) return pg_error(PG_ERROR_ARGUMENT, "copy: the dtypes differ");
  pg_status status = check_transfer("copy", to, bytes);
  if (!status) status = check_transfer("copy", from, bytes);
  if (status) return status;
  int d = to->storage->device, s = from->storage->device;
  if (d == s) return pg_device(d)->within(to->view.data, from->view.data, bytes);
  if (d == PG_CPU) return pg_device(s)->to_host(to->view.data, from->view.data, bytes);
  if (s == PG_CPU) return pg_device(d)->from_host(to->view.data, from->view.data, bytes);
  return pg_error(PG_ERROR_UNSUPPORTED, "copy: between two devices, go through the CPU");
}
