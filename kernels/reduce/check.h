/* Checks of the reduce kernels' arguments, on every device (reduce.h). */
#ifndef PERIGEE_REDUCE_CHECK_H
#define PERIGEE_REDUCE_CHECK_H

#include "reduce/reduce.h"

/* `kept`: the elements of y; `removed`: those of x that make one of them. */
static pg_status expect_reduce(const pg_call *call, int64_t kept, int64_t removed) {
  const reduce_views v = reduce_of(call);
  int64_t which = reduce_ints_of(call).operation;
  PG_EXPECT(which >= 0 && which < PG_REDUCE_FUNCTIONS, "reduce: unknown function number %lld", (long long)which);
  PG_EXPECT(pg_contiguous(v.x) && pg_contiguous(v.y), "reduce: x and y must be contiguous");
  PG_EXPECT(pg_numel(v.y) == kept, "reduce: y is %s, expected the %lld elements that stay of %s", pg_shape_text(v.y),
            (long long)kept, pg_shape_text(v.x));
  PG_EXPECT(v.x->dtype == PG_REAL || (v.x->dtype >= PG_INT32 && PG_REAL == PG_FLOAT32),
            "reduce: x is %s, this instance takes %s", pg_dtype_name(v.x->dtype), pg_dtype_name(PG_REAL));
  if (v.x->dtype >= PG_INT32) {
    int expected = which == PG_REDUCE_sum ? PG_INT64 : v.x->dtype;
    PG_EXPECT(which != PG_REDUCE_mean, "reduce: integers have no mean; cast them to float32 first");
    PG_EXPECT(v.y->dtype == expected, "reduce: y is %s; expected %s", pg_dtype_name(v.y->dtype),
              pg_dtype_name(expected));
    PG_EXPECT(removed > 0 || which == PG_REDUCE_sum, "reduce: %s has no element to choose", pg_shape_text(v.x));
    return PG_OK;
  }
  PG_EXPECT(v.y->dtype == PG_REAL, "reduce: x is %s, y is %s; they must have one dtype", pg_dtype_name(v.x->dtype),
            pg_dtype_name(v.y->dtype));
  return PG_OK;
}

static pg_status expect_argmax(const pg_call *call) {
  const argmax_views v = argmax_of(call);
  int64_t dim = argmax_ints_of(call).dim;
  PG_EXPECT(v.x->dtype == PG_REAL && v.y->dtype == PG_INT64,
            "argmax: x is %s, y is %s; expected %s and int64", pg_dtype_name(v.x->dtype), pg_dtype_name(v.y->dtype),
            pg_dtype_name(PG_REAL));
  PG_EXPECT(dim >= 0 && dim < v.x->ndim && v.x->shape[dim] > 0, "argmax: x is %s: no element in dimension %lld",
            pg_shape_text(v.x), (long long)dim + 1);
  int64_t places = 1;
  for (int d = 0; d < v.x->ndim; d++) places *= d == dim ? 1 : v.x->shape[d];
  PG_EXPECT(pg_contiguous(v.x) && pg_contiguous(v.y) && pg_numel(v.y) == places,
            "argmax: y is %s, expected the %lld other places of %s, both contiguous", pg_shape_text(v.y),
            (long long)places, pg_shape_text(v.x));
  return PG_OK;
}

#endif
