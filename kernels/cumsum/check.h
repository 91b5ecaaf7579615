/* Checks of the cumsum kernels' arguments, on every device (cumsum.h). */
#ifndef PERIGEE_CUMSUM_CHECK_H
#define PERIGEE_CUMSUM_CHECK_H

#include "cumsum/cumsum.h"

/* Rows, and their length. */
static pg_status expect_cumsum(const pg_call *call, int64_t *rows, int64_t *n) {
  const cumsum_views v = cumsum_of(call);
  PG_EXPECT(v.x->ndim >= 1, "cumsum: a tensor without dimensions has no rows");
  PG_EXPECT(v.x->dtype == PG_REAL || (v.x->dtype >= PG_INT32 && PG_REAL == PG_FLOAT32),
            "cumsum: x is %s, this instance takes %s", pg_dtype_name(v.x->dtype), pg_dtype_name(PG_REAL));
  int expected = v.x->dtype == PG_REAL ? PG_REAL : (int)PG_INT64;
  PG_EXPECT(v.y->dtype == expected, "cumsum: y is %s; expected %s", pg_dtype_name(v.y->dtype),
            pg_dtype_name(expected));
  PG_EXPECT(pg_same_shape(v.x, v.y) && pg_contiguous(v.x) && pg_contiguous(v.y),
            "cumsum: x is %s, y is %s; they must be the same, both contiguous", pg_shape_text(v.x), pg_shape_text(v.y));
  *n = v.x->shape[v.x->ndim - 1];
  *rows = *n ? pg_numel(v.x) / *n : 0;
  return PG_OK;
}

#endif
