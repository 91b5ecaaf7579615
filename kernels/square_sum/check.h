/* Checks of the square_sum kernels' arguments, on every device (square_sum.h). */
#ifndef PERIGEE_SQUARE_SUM_CHECK_H
#define PERIGEE_SQUARE_SUM_CHECK_H

#include "square_sum/square_sum.h"

static inline pg_status expect_square_sum(const pg_call *call) {
  const square_sum_views v = square_sum_of(call);
  PG_EXPECT(v.x->dtype == PG_REAL && v.sum->dtype == PG_STAT && pg_numel(v.sum) == 1,
            "square_sum: x is %s, the sum %s; expected one number of the statistics' dtype", pg_shape_text(v.x),
            pg_shape_text(v.sum));
  return PG_OK;
}

#endif
