/* Checks of the mse kernels' arguments, on every device (mse.h). */
#ifndef PERIGEE_MSE_CHECK_H
#define PERIGEE_MSE_CHECK_H

#include "mse/mse.h"

static int64_t samples_of(const pg_view *a) { return a->ndim ? a->shape[0] : 1; }

static pg_status expect_mse(const pg_call *call) {
  const mse_views v = mse_of(call);
  PG_EXPECT(pg_same_shape(v.a, v.b) && pg_numel(v.a) > 0, "mse: a is %s, b is %s; they must have one shape, not empty",
            pg_shape_text(v.a), pg_shape_text(v.b));
  PG_EXPECT(!pg_present(v.per_sample) || pg_numel(v.per_sample) == samples_of(v.a),
            "mse: a is %s, per_sample is %s; it must have one element a sample", pg_shape_text(v.a),
            pg_shape_text(v.per_sample));
  return PG_OK;
}

static pg_status expect_mse_backward(const pg_call *call) {
  const mse_backward_views v = mse_backward_of(call);
  PG_EXPECT(pg_same_shape(v.a, v.b) && pg_same_shape(v.a, v.da) && pg_numel(v.a) > 0,
            "mse_backward: a is %s, b is %s, da is %s; they must have one shape, not empty", pg_shape_text(v.a),
            pg_shape_text(v.b), pg_shape_text(v.da));
  PG_EXPECT(!pg_present(v.sample_coefficient) || pg_numel(v.sample_coefficient) == samples_of(v.a),
            "mse_backward: a is %s, sample_coefficient is %s; it must have one element a sample", pg_shape_text(v.a),
            pg_shape_text(v.sample_coefficient));
  return PG_OK;
}

#endif
