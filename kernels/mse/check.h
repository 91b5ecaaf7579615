/* What the mse kernels of every device ask of their arguments (mse.h). */
#ifndef PERIGEE_MSE_CHECK_H
#define PERIGEE_MSE_CHECK_H

#include "kernel.h"

static int64_t samples_of(const pg_view *a) { return a->ndim ? a->shape[0] : 1; }

static pg_status expect_mse(const pg_call *call) {
  const pg_view *a = &call->v[2], *b = &call->v[3];
  PG_EXPECT(pg_same_shape(a, b) && pg_numel(a) > 0, "mse: a is %s, b is %s; they must have one shape, not empty",
            pg_shape_text(a), pg_shape_text(b));
  PG_EXPECT(!pg_present(call, 1) || pg_numel(&call->v[1]) == samples_of(a),
            "mse: a is %s, per_sample is %s; it must have one element a sample", pg_shape_text(a),
            pg_shape_text(&call->v[1]));
  return PG_OK;
}

static pg_status expect_mse_backward(const pg_call *call) {
  const pg_view *a = &call->v[4], *b = &call->v[5];
  PG_EXPECT(pg_same_shape(a, b) && pg_same_shape(a, &call->v[0]) && pg_numel(a) > 0,
            "mse_backward: a is %s, b is %s, da is %s; they must have one shape, not empty", pg_shape_text(a),
            pg_shape_text(b), pg_shape_text(&call->v[0]));
  PG_EXPECT(!pg_present(call, 3) || pg_numel(&call->v[3]) == samples_of(a),
            "mse_backward: a is %s, sample_coefficient is %s; it must have one element a sample", pg_shape_text(a),
            pg_shape_text(&call->v[3]));
  return PG_OK;
}

#endif
