/* The loader's fields: one sample at a time from a tensor, a file of records, files of one record, or pictures. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"
#include "loader.h"

/* ---- describing ---- */

pg_status pg_field_shape(pg_field *f, int dtype, int ndim, const int64_t *shape, int augment) {
  f->fd = -1;
  f->augment = augment;
  if (dtype < 0 || dtype >= PG_DTYPES || ndim < 0 || ndim >= PG_MAX_DIMS)
    return pg_error(PG_ERROR_ARGUMENT, "loader: a sample of dtype %d with %d dimensions", dtype, ndim);
  f->view.dtype = dtype;
  f->view.ndim = ndim;
  f->sample_bytes = pg_dtype_bytes(dtype);
  for (int d = 0; d < ndim; d++) {
    f->view.shape[d] = shape[d];
    if (shape[d] < 1 || __builtin_mul_overflow(f->sample_bytes, shape[d], &f->sample_bytes) ||
        f->sample_bytes > INT32_MAX)
      return pg_error(PG_ERROR_ARGUMENT, "loader: dimension %d of a sample is %lld; a sample has 1 byte to 2 GiB",
                      d + 1, (long long)shape[d]);
  }
  return PG_OK;
}

pg_status pg_field_tensor(pg_field *f, int64_t count, pg_tensor *data, int augment) {
  const pg_view *v = pg_tensor_info(data);
  f->kind = PG_FIELD_TENSOR;
  if (v->ndim < 1 || v->shape[0] != count)
    return pg_error(PG_ERROR_ARGUMENT, "loader: %lld samples were announced, the tensor is %s", (long long)count,
                    pg_shape_text(v));
  if (!pg_contiguous(v) || pg_tensor_device(data) != PG_CPU)
    return pg_error(PG_ERROR_ARGUMENT, "loader: the tensor %s is not contiguous memory of the CPU", pg_shape_text(v));
  pg_status status = pg_field_shape(f, v->dtype, v->ndim - 1, v->shape + 1, augment);
  if (status) return status;
  pg_tensor_retain(data);
  f->tensor = data;
  return PG_OK;
}

char *pg_field_copy(const char *bytes, size_t length) {
  char *copy = pg_host_calloc(length + 1, 1);
  if (copy) memcpy(copy, bytes, length);
  else pg_error(PG_ERROR_MEMORY, "loader: out of memory");
  return copy;
}

pg_status pg_field_file(pg_field *f, int64_t count, const char *path, int64_t offset) {
  int64_t size = 0, wanted = 0;
  f->kind = PG_FIELD_FILE;
  f->offset = offset;
  f->path = pg_field_copy(path, strlen(path));
  if (!f->path) return PG_ERROR_MEMORY;
  f->fd = pg_file_open(path, &size);
  if (f->fd < 0) return PG_ERROR_IO;
  if (offset < 0 || __builtin_mul_overflow(count, f->sample_bytes, &wanted) || offset > size || wanted > size - offset)
    return pg_error(PG_ERROR_FORMAT,
                    "%s: %lld records of %lld bytes from byte %lld are wanted, the file has %lld bytes", path,
                    (long long)count, (long long)f->sample_bytes, (long long)offset, (long long)size);
  return PG_OK;
}

enum { SUM_BYTES = 4 }; /* of a record's CRC-32 */

/* The end of the last sample's record, or of its mirror image's; -1: it makes no sense. */
static int64_t mapped_end(const pg_field *f, int64_t count) {
  int64_t end = 0, record = f->sample_bytes + SUM_BYTES;
  if (f->offset < 0 || f->stride < record || f->mirrored < 0 || f->mirrored % f->stride ||
      __builtin_mul_overflow(count - 1, f->stride, &end) || __builtin_add_overflow(end, f->offset, &end) ||
      __builtin_add_overflow(end, f->mirrored, &end) || __builtin_add_overflow(end, record, &end))
    return -1;
  return end;
}

pg_status pg_field_mapped(pg_field *f, int64_t count, const char *path, int64_t offset, int64_t stride,
                          int64_t mirrored, uint32_t seed) {
  int64_t size = 0;
  f->kind = PG_FIELD_MAPPED;
  f->seed = seed;
  f->offset = offset;
  f->stride = stride;
  f->mirrored = mirrored;
  f->path = pg_field_copy(path, strlen(path));
  if (!f->path) return PG_ERROR_MEMORY;
  int64_t end = mapped_end(f, count);
  if (end < 0)
    return pg_error(PG_ERROR_ARGUMENT, "%s: %lld records of %lld bytes, %lld apart, from byte %lld make no sense", path,
                    (long long)count, (long long)f->sample_bytes, (long long)stride, (long long)offset);
  int fd = pg_file_open(path, &size);
  if (fd < 0) return PG_ERROR_IO;
  pg_status status = PG_OK;
  if (end > size)
    status = pg_error(PG_ERROR_FORMAT, "%s: records up to byte %lld are wanted, the file has %lld bytes", path,
                      (long long)end, (long long)size);
  void *map = status ? MAP_FAILED : mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (map == MAP_FAILED)
    return status ? status : pg_error(PG_ERROR_IO, "%s: %lld bytes cannot be mapped", path, (long long)size);
  f->map = map;
  f->map_bytes = size;
  f->sound = pg_host_calloc((size_t)(mirrored / stride + count), sizeof *f->sound); /* fewer than the file has bytes */
  return f->sound ? PG_OK : pg_error(PG_ERROR_MEMORY, "loader: out of memory");
}

pg_status pg_field_header(pg_field *f, const void *header, int64_t header_bytes) {
  if (header_bytes < 0 || header_bytes > INT32_MAX)
    return pg_error(PG_ERROR_ARGUMENT, "loader: a header of %lld bytes", (long long)header_bytes);
  f->header = pg_field_copy(header, (size_t)header_bytes);
  f->offset = header_bytes;
  return f->header ? PG_OK : PG_ERROR_MEMORY;
}

pg_status pg_field_below(pg_field *f, int64_t below, const char *what) {
  if (f->view.dtype != PG_INT64 || below < 1)
    return pg_error(PG_ERROR_ARGUMENT, "%s: %s numbers below %lld; expected int64, and at least 1", what,
                    pg_dtype_name(f->view.dtype), (long long)below);
  f->what = pg_field_copy(what, strlen(what));
  if (!f->what) return PG_ERROR_MEMORY;
  f->below = below;
  return PG_OK;
}

void pg_field_free(pg_field *f) {
  if (f->kind == PG_FIELD_FILE && f->fd >= 0) close(f->fd);
  if (f->map) munmap((void *)(uintptr_t)f->map, (size_t)f->map_bytes);
  pg_tensor_release(f->tensor);
  pg_field_members_free(f);
  pg_host_free(f->sound);
  pg_host_free(f->header);
  pg_host_free(f->what);
}

/* ---- reading ---- */

/* An error about a file of another size than the data set's first, by its beginning of up to 512 bytes. */
static pg_status other_size(const pg_field *f, const char *label, const char *piece, int64_t size) {
  const char *found = pg_file_recognise(piece, size < 512 ? size : 512);
  if (found && found != pg_file_recognise(f->header, f->offset))
    return pg_error(PG_ERROR_FORMAT, "%s: not like the data set's first file: it is %s", label, found);
  return pg_error(PG_ERROR_FORMAT, "%s: it has %lld bytes, the data set's files have %lld", label, (long long)size,
                  (long long)(f->offset + f->sample_bytes));
}

static pg_status other_header(const char *label) {
  return pg_error(PG_ERROR_FORMAT, "%s: its header is not that of the data set's first file", label);
}

/* A file of header and one record, the header being the one all files share. */
static pg_status read_one_record(const pg_field *f, const char *path, int fd, int64_t size, uint8_t *out) {
  char piece[512];
  if (size != f->offset + f->sample_bytes) {
    pg_status status = pg_file_read_at(fd, path, 0, piece, size < (int64_t)sizeof piece ? size : (int64_t)sizeof piece);
    return status ? status : other_size(f, path, piece, size);
  }
  for (int64_t at = 0; at < f->offset;) {
    int64_t now = f->offset - at < (int64_t)sizeof piece ? f->offset - at : (int64_t)sizeof piece;
    pg_status status = pg_file_read_at(fd, path, at, piece, now);
    if (status) return status;
    if (memcmp(piece, f->header + at, (size_t)now)) return other_header(path);
    at += now;
  }
  return pg_file_read_at(fd, path, f->offset, out, f->sample_bytes);
}

/* The same of a member of an archive. */
static pg_status read_member_record(const pg_field *f, int64_t index, bool mirrored, uint8_t *out) {
  char label[PATH_MAX], *bytes = NULL;
  int64_t size = 0;
  pg_status status = pg_field_member(f, index, mirrored, label, &bytes, &size);
  if (!status && size != f->offset + f->sample_bytes) status = other_size(f, label, bytes, size);
  if (!status && memcmp(bytes, f->header, (size_t)f->offset)) status = other_header(label);
  if (!status) memcpy(out, bytes + f->offset, (size_t)f->sample_bytes);
  pg_host_free(bytes);
  return status;
}

static pg_status read_file(const pg_field *f, int64_t index, bool mirrored, uint8_t *out) {
  char path[PATH_MAX];
  int64_t size = 0;
  if (f->archives) return read_member_record(f, index, mirrored, out);
  pg_status status = pg_field_path(f, index, mirrored, path);
  if (status) return status;
  int fd = pg_file_open(path, &size);
  if (fd < 0) return PG_ERROR_IO;
  status = read_one_record(f, path, fd, size, out);
  close(fd);
  return status;
}

/* The picture of a sample as its file has it; `label` is what an error calls it. */
static pg_status decode_picture(const pg_field *f, int64_t index, bool mirrored, char label[PATH_MAX],
                                pg_picture *picture) {
  char *bytes = NULL;
  int64_t size = 0;
  if (!f->archives) {
    pg_status status = pg_field_path(f, index, mirrored, label);
    return status ? status : pg_picture_read(picture, label);
  }
  pg_status status = pg_field_member(f, index, mirrored, label, &bytes, &size);
  if (!status) status = pg_picture_from(picture, label, bytes, size);
  pg_host_free(bytes);
  return status;
}

static pg_status read_picture(const pg_field *f, int64_t index, bool mirrored, uint8_t *out) {
  char label[PATH_MAX];
  pg_picture picture = {0};
  int64_t height = f->view.shape[0], width = f->view.shape[1];
  pg_status status = decode_picture(f, index, mirrored, label, &picture);
  if (status) return status;
  if (picture.height == height && picture.width == width) memcpy(out, picture.pixels, (size_t)f->sample_bytes);
  else if (f->resize == PG_RESIZE_FIT) status = pg_picture_fit(&picture, out, height, width);
  else if (f->resize == PG_RESIZE_CROP) status = pg_picture_crop(&picture, out, height);
  else
    status = pg_error(PG_ERROR_FORMAT, "%s: the picture is %lldx%lld, the data set's are %lldx%lld (width x height)",
                      label, (long long)picture.width, (long long)picture.height, (long long)width, (long long)height);
  pg_picture_free(&picture);
  return status;
}

/* A record of a mapped file; its sum is looked at the first time. */
static pg_status read_mapped(const pg_field *f, int64_t number, uint8_t *out) {
  const uint8_t *record = f->map + f->offset + number * f->stride;
  memcpy(out, record, (size_t)f->sample_bytes);
  if (atomic_load_explicit(&f->sound[number], memory_order_relaxed)) return PG_OK;
  uint32_t sum;
  memcpy(&sum, record + f->sample_bytes, sizeof sum);
  if (pg_record_crc32(f->seed, number, out, f->sample_bytes) != sum)
    return pg_error(PG_ERROR_FORMAT, "%s: record %lld is damaged: its CRC-32 is another", f->path, (long long)number);
  atomic_store_explicit(&f->sound[number], 1, memory_order_relaxed);
  return PG_OK;
}

/* ---- augmentation ---- */

static void mirror(uint8_t *pixels, int64_t height, int64_t width, int64_t channels) {
  for (int64_t y = 0; y < height; y++)
    for (int64_t left = 0, right = width - 1; left < right; left++, right--)
      for (int64_t c = 0; c < channels; c++) {
        uint8_t *a = pixels + (y * width + left) * channels + c, *b = pixels + (y * width + right) * channels + c;
        uint8_t swapped = *a;
        *a = *b;
        *b = swapped;
      }
}

/* Moves the content down and right in place; zeros move in. */
static void shift(uint8_t *pixels, int64_t height, int64_t width, int64_t channels, int64_t down, int64_t right) {
  int64_t row = width * channels, kept = width - (right < 0 ? -right : right);
  int64_t from_x = (right < 0 ? -right : 0) * channels, to_x = (right > 0 ? right : 0) * channels;
  for (int64_t k = 0; k < height; k++) {
    int64_t y = down > 0 ? height - 1 - k : k, source = y - down; /* rows are read before they are overwritten */
    uint8_t *to = pixels + y * row;
    if (source < 0 || source >= height || kept <= 0) {
      memset(to, 0, (size_t)row);
      continue;
    }
    memmove(to + to_x, pixels + source * row + from_x, (size_t)(kept * channels));
    memset(to, 0, (size_t)to_x);
    memset(to + to_x + kept * channels, 0, (size_t)(row - to_x - kept * channels));
  }
}

static pg_status check_below(const pg_field *f, int64_t index, bool mirrored, const uint8_t *sample) {
  char label[PATH_MAX];
  for (int64_t at = 0, number; at < f->sample_bytes; at += (int64_t)sizeof number) {
    memcpy(&number, sample + at, sizeof number);
    if (number >= 0 && number < f->below) continue;
    pg_field_label(f, index, mirrored, label);
    return pg_error(PG_ERROR_FORMAT, "%s %lld of sample %lld%s%s; with %lld classes they are 0 to %lld", f->what,
                    (long long)number, (long long)index, *label ? " in " : "", label, (long long)f->below,
                    (long long)f->below - 1);
  }
  return PG_OK;
}

pg_status pg_field_sample(const pg_field *f, int64_t index, const pg_augmentation *a, uint8_t *out) {
  pg_status status = PG_OK;
  switch (f->kind) {
  case PG_FIELD_TENSOR:
    memcpy(out, (const uint8_t *)pg_tensor_info(f->tensor)->data + index * f->sample_bytes, (size_t)f->sample_bytes);
    break;
  case PG_FIELD_FILE:
    status = pg_file_read_at(f->fd, f->path, f->offset + index * f->sample_bytes, out, f->sample_bytes);
    break;
  case PG_FIELD_MAPPED:
    status = read_mapped(f, index + (a->flip ? f->mirrored / f->stride : 0), out);
    break;
  case PG_FIELD_FILES: status = read_file(f, index, a->flip, out); break;
  default: status = read_picture(f, index, a->flip, out);
  }
  if (!status && f->below) status = check_below(f, index, a->flip, out);
  if (status || !f->augment) return status;
  const int64_t *shape = f->view.shape;
  if (a->flip) mirror(out, shape[0], shape[1], shape[2]);
  if (a->down || a->right) shift(out, shape[0], shape[1], shape[2], a->down, a->right);
  return PG_OK;
}
