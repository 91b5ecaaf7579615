/* What the reduce kernels of every device ask of their arguments (reduce.h). */
#ifndef PERIGEE_REDUCE_CHECK_H
#define PERIGEE_REDUCE_CHECK_H

#include "kernel.h"

/* `kept`: the elements of y; `removed`: those of x that make one of them. */
static pg_status expect_reduce(const pg_call *call, int64_t kept, int64_t removed) {
  const pg_view *y = &call->v[0], *x = &call->v[1];
  int64_t which = call->i[0];
  PG_EXPECT(which >= 0 && which < PG_REDUCE_FUNCTIONS, "reduce: there is no function number %lld", (long long)which);
  PG_EXPECT(pg_contiguous(x) && pg_contiguous(y), "reduce: x and y must be contiguous");
  PG_EXPECT(pg_numel(y) == kept, "reduce: y is %s, expected the %lld elements that stay of %s", pg_shape_text(y),
            (long long)kept, pg_shape_text(x));
  PG_EXPECT(x->dtype == PG_REAL || (x->dtype >= PG_INT32 && PG_REAL == PG_FLOAT32),
            "reduce: x has dtype %d, this instance has %d", x->dtype, PG_REAL);
  if (x->dtype >= PG_INT32) {
    int expected = which == PG_REDUCE_sum ? PG_INT64 : x->dtype;
    PG_EXPECT(which != PG_REDUCE_mean, "reduce: integers have no mean; cast them to float32 first");
    PG_EXPECT(y->dtype == expected, "reduce: y has dtype %d, expected %d", y->dtype, expected);
    PG_EXPECT(removed > 0 || which == PG_REDUCE_sum, "reduce: %s has no element to choose", pg_shape_text(x));
    return PG_OK;
  }
  PG_EXPECT(y->dtype == PG_REAL, "reduce: x has dtype %d, y has %d; they must be the same", x->dtype, y->dtype);
  return PG_OK;
}

static pg_status expect_argmax(const pg_call *call) {
  const pg_view *y = &call->v[0], *x = &call->v[1];
  int64_t dim = call->i[0];
  PG_EXPECT(x->dtype == PG_REAL && y->dtype == PG_INT64,
            "argmax: x has dtype %d, expected %d; y has %d, expected int64", x->dtype, PG_REAL, y->dtype);
  PG_EXPECT(dim >= 0 && dim < x->ndim && x->shape[dim] > 0, "argmax: x is %s: no element in dimension %lld",
            pg_shape_text(x), (long long)dim + 1);
  int64_t places = 1;
  for (int d = 0; d < x->ndim; d++) places *= d == dim ? 1 : x->shape[d];
  PG_EXPECT(pg_contiguous(x) && pg_contiguous(y) && pg_numel(y) == places,
            "argmax: y is %s, expected the %lld other places of %s, both contiguous", pg_shape_text(y),
            (long long)places, pg_shape_text(x));
  return PG_OK;
}

#endif
