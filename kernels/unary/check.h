/* Checks of the unary kernels' arguments, on every device (unary.h). */
#ifndef PERIGEE_UNARY_CHECK_H
#define PERIGEE_UNARY_CHECK_H

#include "loop.h"
#include "unary/unary.h"

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
  const unary_views v = unary_of(call);
  const unary_ints ints = unary_ints_of(call);
  PG_EXPECT(v.y->dtype == v.x->dtype && pg_same_shape(v.y, v.x),
            "unary: y is %s, x is %s; shape and dtype must be the same", pg_shape_text(v.y), pg_shape_text(v.x));
  PG_EXPECT(unary_exists(v.x->dtype, ints.operation),
            "unary: function %lld has no version for %s in this instance", (long long)ints.operation,
            pg_dtype_name(v.x->dtype));
  PG_EXPECT(pg_contiguous(v.y), "unary: y must be contiguous");
  const pg_view *const views[2] = {v.y, v.x};
  PG_EXPECT(pg_loop_make(loop, 2, views), "unary: the shapes do not match");
  return PG_OK;
}

#endif
