/* Checks of the accumulate kernels' arguments, on every device (accumulate.h). */
#ifndef PERIGEE_ACCUMULATE_CHECK_H
#define PERIGEE_ACCUMULATE_CHECK_H

#include "accumulate/accumulate.h"

static pg_status expect_accumulate(const pg_call *call) {
  const accumulate_views v = accumulate_of(call);
  PG_EXPECT(
      v.x->dtype == PG_REAL && (v.total->dtype == PG_REAL || v.total->dtype == PG_STAT) &&
          pg_numel(v.total) == pg_numel(v.x),
      "accumulate: total is %s, x is %s; their sizes must agree, and their dtypes, or total is in that of statistics",
      pg_shape_text(v.total), pg_shape_text(v.x));
  return PG_OK;
}

#endif
