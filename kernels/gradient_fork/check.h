/* Checks of the gradient_fork kernels' arguments, on every device (gradient_fork.h). */
#ifndef PERIGEE_GRADIENT_FORK_CHECK_H
#define PERIGEE_GRADIENT_FORK_CHECK_H

#include "gradient_fork/gradient_fork.h"

static pg_status expect_gradient_fork(const pg_call *call) {
  const gradient_fork_views v = gradient_fork_of(call);
  PG_EXPECT(v.a->ndim >= 1 && pg_same_shape(v.a, v.b) && pg_same_shape(v.a, v.sum),
            "gradient_fork: a is %s, b is %s, sum is %s; they must have one shape, of a dimension at least",
            pg_shape_text(v.a), pg_shape_text(v.b), pg_shape_text(v.sum));
  PG_EXPECT(pg_numel(v.products) == v.a->shape[0] * 3, "gradient_fork: a is %s, products are %s; expected [%lld,3]",
            pg_shape_text(v.a), pg_shape_text(v.products), (long long)v.a->shape[0]);
  return PG_OK;
}

#endif
