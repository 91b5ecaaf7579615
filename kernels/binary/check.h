/* What the binary kernels of every device ask of their arguments (binary.h). */
#ifndef PERIGEE_BINARY_CHECK_H
#define PERIGEE_BINARY_CHECK_H

#include "loop.h"

static int binary_exists(int dtype, int64_t which) {
  if (which < 0 || which >= PG_BINARY_FUNCTIONS) return 0;
  if (dtype == PG_REAL) return which < PG_BINARY_logical_and;
  if (PG_REAL != 0 || dtype < PG_INT32) return 0;
  switch (which) {
#define CASE(name, expression) case PG_BINARY_##name:
    PG_BINARY_INTEGERS(CASE)
    PG_BINARY_COMPARISONS(CASE)
    return 1;
    PG_BINARY_LOGICAL(CASE)
#undef CASE
    return dtype == PG_UINT8;
  default: return 0;
  }
}

/* Makes the loop over y, a and b. */
static pg_status expect_binary(const pg_call *call, pg_loop *loop) {
  const pg_view *y = &call->v[0], *a = &call->v[1], *b = &call->v[2];
  int64_t which = call->i[0];
  PG_EXPECT(a->dtype == b->dtype, "binary: a has dtype %d, b has %d; they must be the same", a->dtype, b->dtype);
  PG_EXPECT(binary_exists(a->dtype, which), "binary: function %lld has no version for dtype %d in this instance",
            (long long)which, a->dtype);
  int expected = which >= PG_BINARY_equal ? (int)PG_UINT8 : a->dtype;
  PG_EXPECT(y->dtype == expected, "binary: y has dtype %d, expected %d", y->dtype, expected);
  PG_EXPECT(pg_contiguous(y), "binary: y must be contiguous");
  const pg_view *const views[3] = {y, a, b};
  PG_EXPECT(pg_loop_make(loop, 3, views), "binary: %s and %s do not broadcast to %s", pg_shape_text(a),
            pg_shape_text(b), pg_shape_text(y));
  return PG_OK;
}

#endif
