/* Checks of the binary kernels' arguments, on every device (binary.h). */
#ifndef PERIGEE_BINARY_CHECK_H
#define PERIGEE_BINARY_CHECK_H

#include "loop.h"
#include "binary/binary.h"

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
  const binary_views v = binary_of(call);
  int64_t which = binary_ints_of(call).operation;
  PG_EXPECT(v.a->dtype == v.b->dtype, "binary: a is %s, b is %s; they must have one dtype",
            pg_dtype_name(v.a->dtype), pg_dtype_name(v.b->dtype));
  PG_EXPECT(binary_exists(v.a->dtype, which), "binary: function %lld has no version for %s in this instance",
            (long long)which, pg_dtype_name(v.a->dtype));
  int expected = which >= PG_BINARY_equal ? (int)PG_UINT8 : v.a->dtype;
  PG_EXPECT(v.y->dtype == expected, "binary: y is %s; expected %s", pg_dtype_name(v.y->dtype),
            pg_dtype_name(expected));
  PG_EXPECT(pg_contiguous(v.y), "binary: y must be contiguous");
  const pg_view *const views[3] = {v.y, v.a, v.b};
  PG_EXPECT(pg_loop_make(loop, 3, views), "binary: %s and %s do not broadcast to %s", pg_shape_text(v.a),
            pg_shape_text(v.b), pg_shape_text(v.y));
  return PG_OK;
}

#endif
