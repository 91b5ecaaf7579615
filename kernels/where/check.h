/* What the where kernels of every device ask of their arguments (where.h). */
#ifndef PERIGEE_WHERE_CHECK_H
#define PERIGEE_WHERE_CHECK_H

#include "where/where.h"
#include "loop.h"

/* Makes the loop over y, condition, a and b. */
static pg_status expect_where(const pg_call *call, pg_loop *loop) {
  const where_views v = where_of(call);
  PG_EXPECT(v.condition->dtype == PG_UINT8, "where: the condition has dtype %d, expected uint8", v.condition->dtype);
  PG_EXPECT(v.a->dtype == v.y->dtype && v.b->dtype == v.y->dtype,
            "where: y has dtype %d, a %d, b %d; they must be the same", v.y->dtype, v.a->dtype, v.b->dtype);
  PG_EXPECT(pg_contiguous(v.y), "where: y must be contiguous");
  const pg_view *const views[4] = {v.y, v.condition, v.a, v.b};
  PG_EXPECT(pg_loop_make(loop, 4, views), "where: %s, %s and %s do not broadcast to %s", pg_shape_text(v.condition),
            pg_shape_text(v.a), pg_shape_text(v.b), pg_shape_text(v.y));
  return PG_OK;
}

#endif
