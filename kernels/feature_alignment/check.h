/* What the feature_alignment kernels of every device ask of their arguments (feature_alignment.h). */
#ifndef PERIGEE_FEATURE_ALIGNMENT_CHECK_H
#define PERIGEE_FEATURE_ALIGNMENT_CHECK_H

#include "kernel.h"

static int is_rows(const pg_view *v) { return v->ndim == 3 && (v->shape[2] == 1 || v->stride[2] == 1); }

static pg_status expect_feature_alignment(const pg_call *call) {
  const pg_view *p = &call->v[4], *z = &call->v[5];
  PG_EXPECT(is_rows(p) && is_rows(z) && pg_same_shape(p, z),
            "feature_alignment: p is %s, z is %s; both must be [B,N,Z] with rows in one piece", pg_shape_text(p),
            pg_shape_text(z));
  for (int k = 1; k <= 3; k++)
    PG_EXPECT(pg_numel(&call->v[k]) == p->shape[0] * p->shape[1],
              "feature_alignment: p is %s, %s is %s; it must have one element a row", pg_shape_text(p),
              k == 3 ? "cosine" : "an inverse norm", pg_shape_text(&call->v[k]));
  return PG_OK;
}

static pg_status expect_feature_alignment_backward(const pg_call *call) {
  const pg_view *p = &call->v[5], *z = &call->v[6];
  PG_EXPECT(is_rows(p) && is_rows(z) && pg_same_shape(p, z) && pg_same_shape(p, &call->v[0]),
            "feature_alignment_backward: p is %s, z is %s, dp is %s; all must be [B,N,Z]", pg_shape_text(p),
            pg_shape_text(z), pg_shape_text(&call->v[0]));
  return PG_OK;
}

#endif
