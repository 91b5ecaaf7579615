/* What the layernorm kernels of every device ask of their arguments (layernorm.h). */
#ifndef PERIGEE_LAYERNORM_CHECK_H
#define PERIGEE_LAYERNORM_CHECK_H

#include "kernel.h"

static int is_row_per_image(const pg_view *v, const pg_view *x) {
  return v->ndim == 3 && v->shape[0] == x->shape[0] && v->shape[1] == 1 && v->shape[2] == x->shape[2] &&
         (v->shape[2] == 1 || v->stride[2] == 1);
}

static pg_status expect_layernorm(const pg_call *call) {
  const pg_view *x = &call->v[3];
  PG_EXPECT(x->ndim >= 1 && pg_same_shape(x, &call->v[0]), "layernorm: x is %s, y is %s; they must have one shape",
            pg_shape_text(x), pg_shape_text(&call->v[0]));
  int64_t width = x->shape[x->ndim - 1];
  for (int k = 4; k <= 5; k++)
    PG_EXPECT(!pg_present(call, k) || (call->v[k].ndim == 1 && call->v[k].shape[0] == width),
              "layernorm: x is %s, %s is %s; it must be [%lld]", pg_shape_text(x), k == 4 ? "weight" : "bias",
              pg_shape_text(&call->v[k]), (long long)width);
  int64_t rows = width ? pg_numel(x) / width : 0;
  PG_EXPECT(pg_numel(&call->v[1]) == rows && pg_numel(&call->v[2]) == rows,
            "layernorm: x is %s, mean is %s, rstd is %s; they must have one element a row", pg_shape_text(x),
            pg_shape_text(&call->v[1]), pg_shape_text(&call->v[2]));
  return PG_OK;
}

static pg_status expect_layernorm_modulate(const pg_call *call) {
  const pg_view *x = &call->v[3], *shift = &call->v[4], *scale = &call->v[5];
  PG_EXPECT(x->ndim == 3 && pg_same_shape(x, &call->v[0]), "layernorm_modulate: x is %s, y is %s; both must be [B,N,D]",
            pg_shape_text(x), pg_shape_text(&call->v[0]));
  PG_EXPECT(is_row_per_image(shift, x) && is_row_per_image(scale, x),
            "layernorm_modulate: x is %s, shift is %s, scale is %s; those must be [%lld,1,%lld] with rows in one piece",
            pg_shape_text(x), pg_shape_text(shift), pg_shape_text(scale), (long long)x->shape[0], (long long)x->shape[2]);
  PG_EXPECT(pg_numel(&call->v[1]) == x->shape[0] * x->shape[1] && pg_same_shape(&call->v[1], &call->v[2]),
            "layernorm_modulate: x is %s, mean is %s, rstd is %s; they must have one element a row", pg_shape_text(x),
            pg_shape_text(&call->v[1]), pg_shape_text(&call->v[2]));
  return PG_OK;
}

/* What both backward kernels have in common. */
static pg_status expect_rows(const pg_call *call, const char *name) {
  const pg_view *dx = &call->v[0], *dy = &call->v[3], *x = &call->v[4];
  PG_EXPECT(x->ndim >= 1 && pg_same_shape(x, dy) && pg_same_shape(x, dx),
            "%s: x is %s, dy is %s, dx is %s; they must have one shape", name, pg_shape_text(x), pg_shape_text(dy),
            pg_shape_text(dx));
  PG_EXPECT(!pg_present(call, 8) || pg_same_shape(x, &call->v[8]), "%s: x is %s, dresidual is %s; they must have one shape",
            name, pg_shape_text(x), pg_shape_text(&call->v[8]));
  int64_t rows = x->shape[x->ndim - 1] ? pg_numel(x) / x->shape[x->ndim - 1] : 0;
  PG_EXPECT(pg_numel(&call->v[5]) == rows && pg_numel(&call->v[6]) == rows,
            "%s: x is %s, mean is %s, rstd is %s; they must have one element a row", name, pg_shape_text(x),
            pg_shape_text(&call->v[5]), pg_shape_text(&call->v[6]));
  return PG_OK;
}

static pg_status expect_layernorm_backward(const pg_call *call) {
  pg_status status = expect_rows(call, "layernorm_backward");
  if (status) return status;
  const pg_view *x = &call->v[4];
  int64_t width = x->shape[x->ndim - 1];
  for (int k = 1; k <= 7; k += k == 2 ? 5 : 1)
    PG_EXPECT(!pg_present(call, k) || pg_numel(&call->v[k]) == width,
              "layernorm_backward: x is %s, %s is %s; it must be [%lld]", pg_shape_text(x),
              k == 1 ? "dweight" : k == 2 ? "dbias" : "weight", pg_shape_text(&call->v[k]), (long long)width);
  return PG_OK;
}

static pg_status expect_layernorm_modulate_backward(const pg_call *call) {
  pg_status status = expect_rows(call, "layernorm_modulate_backward");
  if (status) return status;
  const pg_view *x = &call->v[4], *scale = &call->v[7];
  PG_EXPECT(x->ndim == 3 && is_row_per_image(scale, x),
            "layernorm_modulate_backward: x is %s, scale is %s; they must be [B,N,D] and [B,1,D] with rows in one piece",
            pg_shape_text(x), pg_shape_text(scale));
  for (int k = 1; k <= 2; k++)
    PG_EXPECT(!pg_present(call, k) || (is_row_per_image(&call->v[k], x) && pg_contiguous(&call->v[k])),
              "layernorm_modulate_backward: x is %s, %s is %s; it must be [B,1,D]", pg_shape_text(x),
              k == 1 ? "dshift" : "dscale", pg_shape_text(&call->v[k]));
  return PG_OK;
}

#endif
