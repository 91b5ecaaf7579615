/* What the gradient_fork kernels of every device ask of their arguments (gradient_fork.h). */
#ifndef PERIGEE_GRADIENT_FORK_CHECK_H
#define PERIGEE_GRADIENT_FORK_CHECK_H

#include "kernel.h"

static pg_status expect_gradient_fork(const pg_call *call) {
  const pg_view *a = &call->v[2], *b = &call->v[3];
  PG_EXPECT(a->ndim >= 1 && pg_same_shape(a, b) && pg_same_shape(a, &call->v[0]),
            "gradient_fork: a is %s, b is %s, sum is %s; they must have one shape, of a dimension at least",
            pg_shape_text(a), pg_shape_text(b), pg_shape_text(&call->v[0]));
  PG_EXPECT(pg_numel(&call->v[1]) == a->shape[0] * 3, "gradient_fork: a is %s, products are %s; expected [%lld,3]",
            pg_shape_text(a), pg_shape_text(&call->v[1]), (long long)a->shape[0]);
  return PG_OK;
}

#endif
