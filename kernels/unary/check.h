/* What the unary kernels of every device ask of their arguments (unary.h). */
#ifndef PERIGEE_UNARY_CHECK_H
#define PERIGEE_UNARY_CHECK_H

#include "loop.h"

static int unary_exists(int dtype, int64_t which) {
  if (which < 0 || which >= PG_UNARY_FUNCTIONS) return 0;
  if (dtype == PG_REAL) return 1;
  if (PG_REAL != 0 || dtype < PG_INT32) return 0;
  switch (which) {
#define CASE(name, expression) case PG_UNARY_##name:
    PG_UNARY_INTEGERS(CASE)
#undef CASE
    return 1;
  default: return 0;
  }
}

/* Makes the loop over y and x. */
static pg_status expect_unary(const pg_call *call, pg_loop *loop) {
  const pg_view *y = &call->v[0], *x = &call->v[1];
  PG_EXPECT(y->dtype == x->dtype && pg_same_shape(y, x), "unary: y is %s, x is %s; shape and dtype must be the same",
            pg_shape_text(y), pg_shape_text(x));
  PG_EXPECT(unary_exists(x->dtype, call->i[0]), "unary: function %lld has no version for dtype %d in this instance",
            (long long)call->i[0], x->dtype);
  PG_EXPECT(pg_contiguous(y), "unary: y must be contiguous");
  const pg_view *const views[2] = {y, x};
  PG_EXPECT(pg_loop_make(loop, 2, views), "unary: the shapes do not match");
  return PG_OK;
}

#endif
