/* Checks of the where kernels' arguments, on every device (where.h). */
#ifndef PERIGEE_WHERE_CHECK_H
#define PERIGEE_WHERE_CHECK_H

#include "where/where.h"
#include "loop.h"

/* Makes the loop over y, condition, a and b. */
static pg_status expect_where(const pg_call *call, pg_loop *loop) {
  const where_views v = where_of(call);
  PG_EXPECT(v.condition->dtype == PG_UINT8, "where: the condition is %s; expected uint8",
            pg_dtype_name(v.condition->dtype));
  PG_EXPECT(v.a->dtype == v.y->dtype && v.b->dtype == v.y->dtype,
            "where: y is %s, a %s, b %s; they must have one dtype", pg_dtype_name(v.y->dtype),
            pg_dtype_name(v.a->dtype), pg_dtype_name(v.b->dtype));
  PG_EXPECT(pg_contiguous(v.y), "where: y must be contiguous");
  const pg_view *const views[4] = {v.y, v.condition, v.a, v.b};
  PG_EXPECT(pg_loop_make(loop, 4, views), "where: %s, %s and %s do not broadcast to %s", pg_shape_text(v.condition),
            pg_shape_text(v.a), pg_shape_text(v.b), pg_shape_text(v.y));
  return PG_OK;
}

#endif
