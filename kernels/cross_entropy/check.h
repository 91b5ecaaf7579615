/* Checks of the cross_entropy kernels' arguments, on every device (cross_entropy.h). */
#ifndef PERIGEE_CROSS_ENTROPY_CHECK_H
#define PERIGEE_CROSS_ENTROPY_CHECK_H

#include "cross_entropy/cross_entropy.h"

/* The labels' values are not checked here: the CPU's kernels look at them first. */
static pg_status expect_cross_entropy(const char *name, const pg_view *logits, const pg_view *labels) {
  PG_EXPECT(logits->ndim == 2 && labels->ndim == 1 && labels->shape[0] == logits->shape[0] && pg_numel(logits) > 0,
            "%s: logits are %s, labels %s; expected [rows,classes] and [rows]", name, pg_shape_text(logits),
            pg_shape_text(labels));
  PG_EXPECT(labels->dtype == PG_INT32 || labels->dtype == PG_INT64, "%s: labels must be int32 or int64", name);
  return PG_OK;
}

#endif
