/* Checks of the images kernels' arguments, on every device (images.h). */
#ifndef PERIGEE_IMAGES_CHECK_H
#define PERIGEE_IMAGES_CHECK_H

#include "images/images.h"

static int is_transposed(const pg_view *chw, const pg_view *hwc) {
  return chw->ndim == 4 && hwc->ndim == 4 && chw->shape[0] == hwc->shape[0] && chw->shape[1] == hwc->shape[3] &&
         chw->shape[2] == hwc->shape[1] && chw->shape[3] == hwc->shape[2];
}

/* Of each of at most four channels. */
typedef struct channel_scales {
  stat scale[4], offset[4];
} channel_scales;

static channel_scales scales_of(const pg_call *call) {
  const images_floats f = images_floats_of(call);
  const channel_scales scales = {{(stat)f.scale_1, (stat)f.scale_2, (stat)f.scale_3, (stat)f.scale_4},
                                 {(stat)f.offset_1, (stat)f.offset_2, (stat)f.offset_3, (stat)f.offset_4}};
  return scales;
}

static pg_status expect_images(const pg_call *call) {
  const images_views v = images_of(call);
  PG_EXPECT(v.x->dtype == PG_UINT8 && is_transposed(v.y, v.x) && v.x->shape[3] <= 4,
            "images: x is %s, y is %s; expected uint8 [B,H,W,C] and [B,C,H,W] with at most 4 channels",
            pg_shape_text(v.x), pg_shape_text(v.y));
  return PG_OK;
}

static pg_status expect_images_to_bytes(const pg_call *call) {
  const images_to_bytes_views v = images_to_bytes_of(call);
  PG_EXPECT(v.y->dtype == PG_UINT8 && is_transposed(v.x, v.y),
            "images_to_bytes: x is %s, y is %s; expected [B,C,H,W] and uint8 [B,H,W,C]", pg_shape_text(v.x),
            pg_shape_text(v.y));
  return PG_OK;
}

#endif
