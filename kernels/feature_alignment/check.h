/* Checks of the feature_alignment kernels' arguments, on every device (feature_alignment.h). */
#ifndef PERIGEE_FEATURE_ALIGNMENT_CHECK_H
#define PERIGEE_FEATURE_ALIGNMENT_CHECK_H

#include "feature_alignment/feature_alignment.h"

static int is_rows(const pg_view *v) { return v->ndim == 3 && (v->shape[2] == 1 || v->stride[2] == 1); }

static pg_status expect_feature_alignment(const pg_call *call) {
  const feature_alignment_views v = feature_alignment_of(call);
  PG_EXPECT(is_rows(v.p) && is_rows(v.z) && pg_same_shape(v.p, v.z),
            "feature_alignment: p is %s, z is %s; both must be [B,N,Z] with rows in one piece", pg_shape_text(v.p),
            pg_shape_text(v.z));
  const pg_view *const saved[] = {v.inverse_norm_p, v.inverse_norm_z, v.cosine};
  static const char *const names[] = {"inverse_norm_p", "inverse_norm_z", "cosine"};
  for (int k = 0; k < 3; k++)
    PG_EXPECT(pg_numel(saved[k]) == v.p->shape[0] * v.p->shape[1],
              "feature_alignment: p is %s, %s is %s; it must have one element a row", pg_shape_text(v.p), names[k],
              pg_shape_text(saved[k]));
  return PG_OK;
}

static pg_status expect_feature_alignment_backward(const pg_call *call) {
  const feature_alignment_backward_views v = feature_alignment_backward_of(call);
  PG_EXPECT(is_rows(v.p) && is_rows(v.z) && pg_same_shape(v.p, v.z) && pg_same_shape(v.p, v.dp),
            "feature_alignment_backward: p is %s, z is %s, dp is %s; all must be [B,N,Z]", pg_shape_text(v.p),
            pg_shape_text(v.z), pg_shape_text(v.dp));
  return PG_OK;
}

#endif
