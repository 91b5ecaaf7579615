#include "cpu.h"

#include "prod/check.h"
#include "prod/prod.h"

enum { PARALLEL = 16384 /* elements */ };

static real product(const real *x, int64_t n) {
  double y = 1;
  for (int64_t j = 0; j < n; j++) y *= (double)load(x[j]);
  return store((stat)y);
}

#if PG_REAL == 0
static int64_t integer_product(const void *x, int dtype, int64_t n) {
  uint64_t y = 1;
  for (int64_t j = 0; j < n; j++) {
    if (dtype == PG_INT32) y *= (uint64_t)((const int32_t *)x)[j];
    else if (dtype == PG_INT64) y *= (uint64_t)((const int64_t *)x)[j];
    else y *= ((const uint8_t *)x)[j];
  }
  return (int64_t)y;
}
#endif

pg_status PG_CPU(prod)(const pg_call *call) {
  const prod_views v = prod_of(call);
  pg_status status = expect_prod(call);
  if (status) return status;
  int64_t rows = v.x->shape[0], n = v.x->shape[1];
#pragma omp parallel for schedule(static) if (rows * n > PARALLEL)
  for (int64_t row = 0; row < rows; row++) {
    if (v.x->dtype == PG_REAL) ((real *)v.y->data)[row] = product((const real *)v.x->data + row * n, n);
#if PG_REAL == 0
    else
      ((int64_t *)v.y->data)[row] = integer_product(
        (const char *)v.x->data + row * n * pg_dtype_bytes(v.x->dtype), v.x->dtype, n);
#endif
  }
  return PG_OK;
}
