/* What the adamw kernels of every device ask of their arguments (adamw.h). */
#ifndef PERIGEE_ADAMW_CHECK_H
#define PERIGEE_ADAMW_CHECK_H

#include "adamw/adamw.h"

static inline pg_status expect_square_sum(const pg_call *call) {
  const square_sum_views v = square_sum_of(call);
  PG_EXPECT(v.x->dtype == PG_REAL && v.sum->dtype == PG_STAT && pg_numel(v.sum) == 1,
            "square_sum: x is %s, the sum %s; expected one number of the statistics' dtype", pg_shape_text(v.x),
            pg_shape_text(v.sum));
  return PG_OK;
}

static inline pg_status expect_adamw(const pg_call *call) {
  const adamw_views v = adamw_of(call);
  const int64_t n = pg_numel(v.parameters);
  const pg_view *const buffers[] = {v.parameters, v.first_moment, v.second_moment, v.average, v.working, v.gradient};
  static const char *const names[] = {"parameters", "first_moment", "second_moment", "average", "working", "gradient"};
  for (int k = 0; k < 6; k++) {
    const pg_view *buffer = buffers[k];
    if (!pg_present(buffer)) continue; /* average, working */
    PG_EXPECT(buffer->dtype == (buffer == v.working ? PG_BFLOAT16 : PG_REAL) && pg_numel(buffer) == n,
              "adamw: %s is %s; expected %lld elements like the parameters", names[k], pg_shape_text(buffer),
              (long long)n);
  }
  PG_EXPECT((v.hyper->dtype == PG_FLOAT32 || v.hyper->dtype == PG_FLOAT64) && pg_numel(v.hyper) == 8,
            "adamw: hyper is %s; expected [8] of float32 or float64", pg_shape_text(v.hyper));
  PG_EXPECT(v.square_sum->dtype == PG_STAT && pg_numel(v.square_sum) == 1, "adamw: square_sum is %s; expected []",
            pg_shape_text(v.square_sum));
  return PG_OK;
}

#endif
