#include "cpu.h"

#include "accumulate/accumulate.h"

pg_status PG_CPU(accumulate)(const pg_call *call) {
  const pg_view *total = &call->v[0], *x = &call->v[1];
  PG_EXPECT(total->dtype == PG_REAL && x->dtype == PG_REAL && pg_numel(total) == pg_numel(x),
            "accumulate: total is %s, x is %s; their sizes and dtypes must agree", pg_shape_text(total), pg_shape_text(x));
  real *sum = total->data;
  const real *addend = x->data;
  const int64_t n = pg_numel(total);
  const stat scale = (stat)call->f[0];
  if (!call->i[0]) {
#pragma omp parallel for simd schedule(static)
    for (int64_t k = 0; k < n; k++) sum[k] = store(load(sum[k]) + scale * load(addend[k]));
  } else {
#pragma omp parallel for simd schedule(static)
    for (int64_t k = 0; k < n; k++) sum[k] = store(scale * load(addend[k]));
  }
  return PG_OK;
}
