/* What the adamw kernels of every device ask of their arguments (adamw.h). */
#ifndef PERIGEE_ADAMW_CHECK_H
#define PERIGEE_ADAMW_CHECK_H

#include "kernel.h"

static inline pg_status expect_square_sum(const pg_call *call) {
  const pg_view *sum = &call->v[0], *x = &call->v[1];
  PG_EXPECT(x->dtype == PG_REAL && sum->dtype == PG_STAT && pg_numel(sum) == 1,
            "square_sum: x is %s, the sum %s; expected one number of the statistics' dtype", pg_shape_text(x),
            pg_shape_text(sum));
  return PG_OK;
}

static inline pg_status expect_adamw(const pg_call *call) {
  const int64_t n = pg_numel(&call->v[0]);
  static const char *const names[] = {"parameters", "first_moment", "second_moment", "average", "working", "gradient"};
  for (int k = 0; k < 6; k++) {
    if ((k == 3 || k == 4) && !pg_present(call, k)) continue;
    const pg_view *view = &call->v[k];
    PG_EXPECT(view->dtype == (k == 4 ? PG_BFLOAT16 : PG_REAL) && pg_numel(view) == n,
              "adamw: %s is %s; expected %lld elements like the parameters", names[k], pg_shape_text(view),
              (long long)n);
  }
  PG_EXPECT((call->v[6].dtype == PG_FLOAT32 || call->v[6].dtype == PG_FLOAT64) && pg_numel(&call->v[6]) == 8,
            "adamw: hyper is %s; expected [8] of float32 or float64", pg_shape_text(&call->v[6]));
  PG_EXPECT(call->v[7].dtype == PG_STAT && pg_numel(&call->v[7]) == 1, "adamw: square_sum is %s; expected []",
            pg_shape_text(&call->v[7]));
  return PG_OK;
}

#endif
