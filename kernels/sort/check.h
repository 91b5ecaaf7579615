/* Checks of the sort kernels' arguments, on every device (sort.h). */
#ifndef PERIGEE_SORT_CHECK_H
#define PERIGEE_SORT_CHECK_H

#include "sort/sort.h"

/* Rows, and their length. */
static pg_status expect_sort(const pg_call *call, int64_t *rows, int64_t *n) {
  const sort_views v = sort_of(call);
  PG_EXPECT(v.x->ndim >= 1, "sort: a tensor without dimensions has no rows");
  PG_EXPECT(v.x->dtype == PG_REAL || (v.x->dtype >= PG_INT32 && PG_REAL == PG_FLOAT32),
            "sort: x is %s, this instance takes %s", pg_dtype_name(v.x->dtype), pg_dtype_name(PG_REAL));
  PG_EXPECT(v.y->dtype == v.x->dtype && v.place->dtype == PG_INT64,
            "sort: x is %s, y is %s, place is %s; x and y must be the same, and place int64", pg_dtype_name(v.x->dtype),
            pg_dtype_name(v.y->dtype), pg_dtype_name(v.place->dtype));
  PG_EXPECT(pg_same_shape(v.x, v.y) && pg_same_shape(v.x, v.place), "sort: x is %s, y is %s, place is %s",
            pg_shape_text(v.x), pg_shape_text(v.y), pg_shape_text(v.place));
  PG_EXPECT(pg_contiguous(v.x) && pg_contiguous(v.y) && pg_contiguous(v.place),
            "sort: x, y and place must be contiguous");
  *n = v.x->shape[v.x->ndim - 1];
  *rows = *n ? pg_numel(v.x) / *n : 0;
  return PG_OK;
}

#endif
