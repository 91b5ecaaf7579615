/* What the accumulate kernels of every device ask of their arguments (accumulate.h). */
#ifndef PERIGEE_ACCUMULATE_CHECK_H
#define PERIGEE_ACCUMULATE_CHECK_H

#include "kernel.h"

static pg_status expect_accumulate(const pg_call *call) {
  const pg_view *total = &call->v[0], *x = &call->v[1];
  PG_EXPECT(x->dtype == PG_REAL && (total->dtype == PG_REAL || total->dtype == PG_STAT) && pg_numel(total) == pg_numel(x),
            "accumulate: total is %s, x is %s; their sizes must agree, and their dtypes, or total is in that of statistics",
            pg_shape_text(total), pg_shape_text(x));
  return PG_OK;
}

#endif
