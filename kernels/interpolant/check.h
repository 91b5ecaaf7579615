/* What the interpolant kernels of every device ask of their arguments (interpolant.h). */
#ifndef PERIGEE_INTERPOLANT_CHECK_H
#define PERIGEE_INTERPOLANT_CHECK_H

#include "kernel.h"

static pg_status expect_interpolant(const pg_call *call) {
  const pg_view *x0 = &call->v[2], *noise = &call->v[3], *t = &call->v[4];
  PG_EXPECT(x0->ndim >= 1 && pg_same_shape(x0, noise), "interpolant: x0 is %s, noise is %s; they must have one shape",
            pg_shape_text(x0), pg_shape_text(noise));
  PG_EXPECT(pg_same_shape(x0, &call->v[0]) && pg_same_shape(x0, &call->v[1]),
            "interpolant: x0 is %s, x_t is %s, velocity is %s; they must have one shape", pg_shape_text(x0),
            pg_shape_text(&call->v[0]), pg_shape_text(&call->v[1]));
  PG_EXPECT(t->ndim == 1 && t->shape[0] == x0->shape[0], "interpolant: x0 is %s, t is %s; it must be [%lld]",
            pg_shape_text(x0), pg_shape_text(t), (long long)x0->shape[0]);
  PG_EXPECT(call->i[0] == 0 || call->i[0] == 1, "interpolant: path %lld; expected 0 (linear) or 1 (cosine)",
            (long long)call->i[0]);
  return PG_OK;
}

#endif
