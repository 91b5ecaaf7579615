/* Checks of the optimisers' kernels' arguments, on every device. */
#ifndef PERIGEE_UPDATE_CHECK_H
#define PERIGEE_UPDATE_CHECK_H

#include "kernel.h"

/* A flat buffer with a place in an optimiser's step. */
typedef struct pg_update_buffer {
  const char *name;
  const pg_view *view; /* may be absent */
  int dtype;
} pg_update_buffer;

/* Buffers of one length, the first being the parameters; `count` numbers in `hyper`; the squared norm. */
static inline pg_status pg_expect_update(const char *op, const pg_update_buffer *buffers, int buffer_count,
                                         const pg_view *hyper, int count, const pg_view *square_sum) {
  const int64_t n = pg_numel(buffers[0].view);
  for (int k = 0; k < buffer_count; k++) {
    const pg_view *view = buffers[k].view;
    if (!pg_present(view)) continue;
    PG_EXPECT(view->dtype == buffers[k].dtype && pg_numel(view) == n,
              "%s: %s is %s; expected %lld elements like the parameters", op, buffers[k].name, pg_shape_text(view),
              (long long)n);
  }
  PG_EXPECT((hyper->dtype == PG_FLOAT32 || hyper->dtype == PG_FLOAT64) && pg_numel(hyper) == count,
            "%s: hyper is %s; expected [%d] of float32 or float64", op, pg_shape_text(hyper), count);
  PG_EXPECT(square_sum->dtype == PG_STAT && pg_numel(square_sum) == 1, "%s: square_sum is %s; expected []", op,
            pg_shape_text(square_sum));
  return PG_OK;
}

#endif
