/* What the softmax kernels of every device ask of their arguments (softmax.h). */
#ifndef PERIGEE_SOFTMAX_CHECK_H
#define PERIGEE_SOFTMAX_CHECK_H

#include "kernel.h"

/* The first `views` views must be of one shape, contiguous, of at least one dimension; gives rows and their length. */
static pg_status rows_of(const char *name, const pg_call *call, int views, int64_t *rows, int64_t *n) {
  const pg_view *y = &call->v[0];
  PG_EXPECT(y->ndim >= 1, "%s: a tensor without dimensions has no last one", name);
  for (int k = 0; k < views; k++) {
    const pg_view *v = &call->v[k];
    PG_EXPECT(v->dtype == PG_REAL && pg_same_shape(v, y) && pg_contiguous(v),
              "%s: argument %d is %s with dtype %d, expected %s with dtype %d, contiguous", name, k + 1,
              pg_shape_text(v), v->dtype, pg_shape_text(y), PG_REAL);
  }
  *n = y->shape[y->ndim - 1];
  *rows = *n ? pg_numel(y) / *n : 0;
  return PG_OK;
}

#endif
