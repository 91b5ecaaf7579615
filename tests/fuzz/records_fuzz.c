/* The loader's fields (runtime/fields.c): records of a file at any place and stride, with or without sums, files of one
 * record behind a common header, pictures. A field that is taken gives samples or refuses, by name. */
#include "fuzz.h"

enum { MOST_BYTES = 1 << 16 };

static pg_status describe(pg_field *f, input *in, int kind, int64_t count, const char **path) {
  int dtype = take_byte(in) % (PG_DTYPES + 1), ndim = take_byte(in) % (PG_MAX_DIMS + 1);
  int64_t shape[PG_MAX_DIMS];
  for (int d = 0; d < ndim; d++) shape[d] = take_number(in);
  pg_status status = pg_field_shape(f, dtype, ndim, shape, take_byte(in) % 2 && dtype == PG_UINT8 && ndim == 3);
  if (status) return status;
  int64_t offset = take_number(in), stride = take_number(in), mirrored = take_number(in);
  char header[32];
  size_t header_bytes = take_byte(in) % sizeof header;
  for (size_t k = 0; k < header_bytes; k++) header[k] = (char)take_byte(in);
  *path = in_file(in->at, in->left);
  if (kind == PG_FIELD_FILE) return pg_field_file(f, count, *path, offset);
  if (kind == PG_FIELD_MAPPED) return pg_field_mapped(f, count, *path, offset, stride, mirrored, 7);
  status = pg_field_names(f, count, "", *path, (int64_t)strlen(*path) + 1);
  if (!status && kind == PG_FIELD_FILES) status = pg_field_header(f, header, (int64_t)header_bytes);
  if (!status && kind == PG_FIELD_PICTURES) {
    if (ndim != 3 || dtype != PG_UINT8 || shape[2] != 3) return PG_ERROR_ARGUMENT; /* the loader sees to that */
    f->kind = PG_FIELD_PICTURES;
    f->resize = stride & 1 ? PG_RESIZE_FIT : PG_RESIZE_NONE;
  }
  return status;
}

/* One field of an input: made, read and freed; the first failure. */
static pg_status one_field(const uint8_t *data, size_t size) {
  input in = {data, size};
  int kind = PG_FIELD_FILE + take_byte(&in) % 4;
  int64_t count = take_number(&in), below = take_number(&in);
  if (count < 1 || count > UINT32_MAX) count = 1; /* the loader sees to that */
  pg_field f;
  const char *path = NULL;
  memset(&f, 0, sizeof f);
  pg_status status = describe(&f, &in, kind, count, &path);
  require_message(status == PG_ERROR_ARGUMENT ? PG_OK : status);
  if (!status && f.view.dtype == PG_INT64 && below > 0) status = pg_field_below(&f, below, "label");
  if (!status && f.sample_bytes <= MOST_BYTES) {
    uint8_t *out = malloc((size_t)f.sample_bytes);
    const int64_t indices[] = {0, count - 1, count / 2};
    for (int k = 0; k < 6 && out; k++) {
      const pg_augmentation a = {k % 2, k - 3, 2 - k};
      pg_status read = pg_field_sample(&f, indices[k / 2], &a, out);
      REQUIRE(!read || read == PG_ERROR_MEMORY || strstr(pg_last_error(), path));
      if (!status) status = read;
    }
    free(out);
  }
  pg_field_free(&f);
  return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pg_status status = one_field(data, size);
  for (int64_t n = 0; size % 8 == 0 && status != PG_ERROR_MEMORY; n++) { /* every allocation fails, and all after it */
    pg_memory_fail_after(n);
    pg_status refused = one_field(data, size);
    pg_memory_fail_after(-1);
    if (refused != PG_ERROR_MEMORY) {
      REQUIRE(refused == status);
      break;
    }
    REQUIRE(strstr(pg_last_error(), "memory"));
  }
  return 0;
}
