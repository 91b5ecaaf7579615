/* Checks of the prod kernels' arguments, on every device (prod.h). */
#ifndef PERIGEE_PROD_CHECK_H
#define PERIGEE_PROD_CHECK_H

#include "prod/prod.h"

static pg_status expect_prod(const pg_call *call) {
  const prod_views v = prod_of(call);
  PG_EXPECT(v.x->dtype == PG_REAL || (v.x->dtype >= PG_INT32 && PG_REAL == PG_FLOAT32),
            "prod: x is %s, this instance takes %s", pg_dtype_name(v.x->dtype), pg_dtype_name(PG_REAL));
  int expected = v.x->dtype == PG_REAL ? PG_REAL : (int)PG_INT64;
  PG_EXPECT(v.y->dtype == expected, "prod: y is %s; expected %s", pg_dtype_name(v.y->dtype),
            pg_dtype_name(expected));
  PG_EXPECT(v.x->ndim == 2 && v.y->ndim == 1 && v.y->shape[0] == v.x->shape[0] && pg_contiguous(v.x) &&
                pg_contiguous(v.y),
            "prod: x is %s, y is %s; expected [R,N] and [R], both contiguous", pg_shape_text(v.x),
            pg_shape_text(v.y));
  return PG_OK;
}

#endif
