/* Views of a tensor's storage: what pg_tensor_view lets through lies inside, and what lies inside is let through. */
#include "fuzz.h"

enum { STORAGE = 4096 };

/* Bytes from the storage's beginning up to which a view reaches, with no overflow; -1: it is no view. */
static __int128 reach(int64_t first, int64_t offset, int dtype, int ndim, const int64_t *shape, const int64_t *stride) {
  __int128 last = 0, numel = 1;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] < 1 || stride[d] < 0) return -1;
    numel *= shape[d];
    if (numel > INT64_MAX / 16) return -1;
    last += (__int128)(shape[d] - 1) * stride[d];
  }
  __int128 begins = (__int128)first + (__int128)offset * pg_dtype_bytes(dtype);
  return begins < 0 ? -1 : begins + (last + 1) * pg_dtype_bytes(dtype);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static pg_tensor *whole, *part; /* views of a part start in mid-storage */
  const int64_t all[1] = {STORAGE}, half[1] = {STORAGE / 2}, one[1] = {1};
  if (!whole)
    REQUIRE(!pg_tensor_new(&whole, PG_CPU, PG_PURPOSE_OTHER, PG_UINT8, 1, all) &&
            !pg_tensor_view(&part, whole, STORAGE / 4, PG_UINT8, 1, half, one));
  input in = {data, size};
  pg_tensor *base = take_byte(&in) % 2 ? part : whole, *view = NULL;
  int dtype = take_byte(&in) % (PG_DTYPES + 1), ndim = take_byte(&in) % (PG_MAX_DIMS + 2);
  int64_t shape[PG_MAX_DIMS + 1], stride[PG_MAX_DIMS + 1], offset = take_number(&in);
  for (int d = 0; d < ndim; d++) {
    shape[d] = take_number(&in);
    stride[d] = take_number(&in);
  }
  pg_status status = pg_tensor_view(&view, base, offset, dtype, ndim, shape, stride);
  require_message(status);
  if (dtype == PG_DTYPES || ndim > PG_MAX_DIMS) {
    REQUIRE(status);
    return 0;
  }
  __int128 end = reach(base == part ? STORAGE / 4 : 0, offset, dtype, ndim, shape, stride);
  if (!status) {
    const pg_view *v = pg_tensor_info(view);
    REQUIRE(pg_numel(v) == 0 || (end >= 0 && end <= STORAGE));
    if (pg_numel(v)) REQUIRE((char *)v->data >= (char *)pg_tensor_info(whole)->data);
    pg_tensor_release(view);
  } else REQUIRE(end < 0 || end > STORAGE);
  return 0;
}
