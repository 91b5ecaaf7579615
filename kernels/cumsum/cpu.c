#include "cpu.h"

#include "cumsum/check.h"
#include "cumsum/cumsum.h"

enum { PARALLEL = 16384 /* elements */ };

/* A row from its first element on, or from its last one back. */
static void add_reals(real *y, const real *x, int64_t n, int64_t first, int64_t step) {
  double sum = 0;
  for (int64_t k = 0, j = first; k < n; k++, j += step) {
    sum += (double)load(x[j]);
    y[j] = store((stat)sum);
  }
}

#if PG_REAL == 0
static void add_integers(int64_t *y, const void *x, int dtype, int64_t n, int64_t first, int64_t step) {
  uint64_t sum = 0;
  for (int64_t k = 0, j = first; k < n; k++, j += step) {
    if (dtype == PG_INT32) sum += (uint64_t)((const int32_t *)x)[j];
    else if (dtype == PG_INT64) sum += (uint64_t)((const int64_t *)x)[j];
    else sum += ((const uint8_t *)x)[j];
    y[j] = (int64_t)sum;
  }
}
#endif

pg_status PG_CPU(cumsum)(const pg_call *call) {
  const cumsum_views v = cumsum_of(call);
  int64_t rows, n;
  pg_status status = expect_cumsum(call, &rows, &n);
  if (status) return status;
  int64_t first = cumsum_ints_of(call).reverse ? n - 1 : 0, step = first ? -1 : 1;
#pragma omp parallel for schedule(static) if (rows * n > PARALLEL)
  for (int64_t row = 0; row < rows; row++) {
    if (v.x->dtype == PG_REAL)
      add_reals((real *)v.y->data + row * n, (const real *)v.x->data + row * n, n, first, step);
#if PG_REAL == 0
    else
      add_integers((int64_t *)v.y->data + row * n, (const char *)v.x->data + row * n * pg_dtype_bytes(v.x->dtype),
                   v.x->dtype, n, first, step);
#endif
  }
  return PG_OK;
}
