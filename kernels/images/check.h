/* What the images kernels of every device ask of their arguments (images.h). */
#ifndef PERIGEE_IMAGES_CHECK_H
#define PERIGEE_IMAGES_CHECK_H

#include "kernel.h"

static int is_transposed(const pg_view *chw, const pg_view *hwc) {
  return chw->ndim == 4 && hwc->ndim == 4 && chw->shape[0] == hwc->shape[0] && chw->shape[1] == hwc->shape[3] &&
         chw->shape[2] == hwc->shape[1] && chw->shape[3] == hwc->shape[2];
}

static pg_status expect_images(const pg_call *call) {
  const pg_view *y = &call->v[0], *x = &call->v[1];
  PG_EXPECT(x->dtype == PG_UINT8 && is_transposed(y, x) && x->shape[3] <= 4,
            "images: x is %s, y is %s; expected uint8 [B,H,W,C] and [B,C,H,W] with at most 4 channels",
            pg_shape_text(x), pg_shape_text(y));
  return PG_OK;
}

static pg_status expect_images_to_bytes(const pg_call *call) {
  const pg_view *y = &call->v[0], *x = &call->v[1];
  PG_EXPECT(y->dtype == PG_UINT8 && is_transposed(x, y),
            "images_to_bytes: x is %s, y is %s; expected [B,C,H,W] and uint8 [B,H,W,C]", pg_shape_text(x), pg_shape_text(y));
  return PG_OK;
}

#endif
