/* Checks of the interpolant kernels' arguments, on every device (interpolant.h). */
#ifndef PERIGEE_INTERPOLANT_CHECK_H
#define PERIGEE_INTERPOLANT_CHECK_H

#include "interpolant/interpolant.h"

static pg_status expect_interpolant(const pg_call *call) {
  const interpolant_views v = interpolant_of(call);
  PG_EXPECT(v.x0->ndim >= 1 && pg_same_shape(v.x0, v.noise),
            "interpolant: x0 is %s, noise is %s; they must have one shape", pg_shape_text(v.x0),
            pg_shape_text(v.noise));
  PG_EXPECT(pg_same_shape(v.x0, v.x_t) && pg_same_shape(v.x0, v.velocity),
            "interpolant: x0 is %s, x_t is %s, velocity is %s; they must have one shape", pg_shape_text(v.x0),
            pg_shape_text(v.x_t), pg_shape_text(v.velocity));
  PG_EXPECT(v.t->ndim == 1 && v.t->shape[0] == v.x0->shape[0], "interpolant: x0 is %s, t is %s; it must be [%lld]",
            pg_shape_text(v.x0), pg_shape_text(v.t), (long long)v.x0->shape[0]);
  const int64_t path = interpolant_ints_of(call).path;
  PG_EXPECT(path == 0 || path == 1, "interpolant: path %lld; expected 0 (linear) or 1 (cosine)", (long long)path);
  return PG_OK;
}

#endif
