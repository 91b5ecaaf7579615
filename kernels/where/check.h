/* What the where kernels of every device ask of their arguments (where.h). */
#ifndef PERIGEE_WHERE_CHECK_H
#define PERIGEE_WHERE_CHECK_H

#include "loop.h"

/* Makes the loop over y, condition, a and b. */
static pg_status expect_where(const pg_call *call, pg_loop *loop) {
  const pg_view *y = &call->v[0], *condition = &call->v[1], *a = &call->v[2], *b = &call->v[3];
  PG_EXPECT(condition->dtype == PG_UINT8, "where: the condition has dtype %d, expected uint8", condition->dtype);
  PG_EXPECT(a->dtype == y->dtype && b->dtype == y->dtype, "where: y has dtype %d, a %d, b %d; they must be the same",
            y->dtype, a->dtype, b->dtype);
  PG_EXPECT(pg_contiguous(y), "where: y must be contiguous");
  const pg_view *const views[4] = {y, condition, a, b};
  PG_EXPECT(pg_loop_make(loop, 4, views), "where: %s, %s and %s do not broadcast to %s", pg_shape_text(condition),
            pg_shape_text(a), pg_shape_text(b), pg_shape_text(y));
  return PG_OK;
}

#endif
