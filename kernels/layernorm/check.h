/* Checks of the layernorm kernels' arguments, on every device (layernorm.h). */
#ifndef PERIGEE_LAYERNORM_CHECK_H
#define PERIGEE_LAYERNORM_CHECK_H

#include "layernorm/layernorm.h"

static int is_row_per_image(const pg_view *v, const pg_view *x) {
  return v->ndim == 3 && v->shape[0] == x->shape[0] && v->shape[1] == 1 && v->shape[2] == x->shape[2] &&
         (v->shape[2] == 1 || v->stride[2] == 1);
}

static pg_status expect_layernorm(const pg_call *call) {
  const layernorm_views v = layernorm_of(call);
  PG_EXPECT(v.x->ndim >= 1 && pg_same_shape(v.x, v.y), "layernorm: x is %s, y is %s; they must have one shape",
            pg_shape_text(v.x), pg_shape_text(v.y));
  int64_t width = v.x->shape[v.x->ndim - 1];
  PG_EXPECT(!pg_present(v.weight) || (v.weight->ndim == 1 && v.weight->shape[0] == width),
            "layernorm: x is %s, weight is %s; it must be [%lld]", pg_shape_text(v.x), pg_shape_text(v.weight),
            (long long)width);
  PG_EXPECT(!pg_present(v.bias) || (v.bias->ndim == 1 && v.bias->shape[0] == width),
            "layernorm: x is %s, bias is %s; it must be [%lld]", pg_shape_text(v.x), pg_shape_text(v.bias),
            (long long)width);
  int64_t rows = width ? pg_numel(v.x) / width : 0;
  PG_EXPECT(pg_numel(v.mean) == rows && pg_numel(v.rstd) == rows,
            "layernorm: x is %s, mean is %s, rstd is %s; they must have one element a row", pg_shape_text(v.x),
            pg_shape_text(v.mean), pg_shape_text(v.rstd));
  return PG_OK;
}

static pg_status expect_layernorm_modulate(const pg_call *call) {
  const layernorm_modulate_views v = layernorm_modulate_of(call);
  PG_EXPECT(v.x->ndim == 3 && pg_same_shape(v.x, v.y), "layernorm_modulate: x is %s, y is %s; both must be [B,N,D]",
            pg_shape_text(v.x), pg_shape_text(v.y));
  PG_EXPECT(is_row_per_image(v.shift, v.x) && is_row_per_image(v.scale, v.x),
            "layernorm_modulate: x is %s, shift is %s, scale is %s; those must be [%lld,1,%lld] with rows in one piece",
            pg_shape_text(v.x), pg_shape_text(v.shift), pg_shape_text(v.scale), (long long)v.x->shape[0],
            (long long)v.x->shape[2]);
  PG_EXPECT(pg_numel(v.mean) == v.x->shape[0] * v.x->shape[1] && pg_same_shape(v.mean, v.rstd),
            "layernorm_modulate: x is %s, mean is %s, rstd is %s; they must have one element a row", pg_shape_text(v.x),
            pg_shape_text(v.mean), pg_shape_text(v.rstd));
  return PG_OK;
}

/* Common to both backward kernels. */
static pg_status expect_rows(const char *name, const pg_view *dx, const pg_view *dy, const pg_view *x,
                             const pg_view *mean, const pg_view *rstd, const pg_view *dresidual) {
  PG_EXPECT(x->ndim >= 1 && pg_same_shape(x, dy) && pg_same_shape(x, dx),
            "%s: x is %s, dy is %s, dx is %s; they must have one shape", name, pg_shape_text(x), pg_shape_text(dy),
            pg_shape_text(dx));
  PG_EXPECT(!pg_present(dresidual) || pg_same_shape(x, dresidual),
            "%s: x is %s, dresidual is %s; they must have one shape", name, pg_shape_text(x), pg_shape_text(dresidual));
  int64_t rows = x->shape[x->ndim - 1] ? pg_numel(x) / x->shape[x->ndim - 1] : 0;
  PG_EXPECT(pg_numel(mean) == rows && pg_numel(rstd) == rows,
            "%s: x is %s, mean is %s, rstd is %s; they must have one element a row", name, pg_shape_text(x),
            pg_shape_text(mean), pg_shape_text(rstd));
  return PG_OK;
}

static pg_status expect_layernorm_backward(const pg_call *call) {
  const layernorm_backward_views v = layernorm_backward_of(call);
  pg_status status = expect_rows("layernorm_backward", v.dx, v.dy, v.x, v.mean, v.rstd, v.dresidual);
  if (status) return status;
  int64_t width = v.x->shape[v.x->ndim - 1];
  const pg_view *const rows[] = {v.dweight, v.dbias, v.weight};
  static const char *const names[] = {"dweight", "dbias", "weight"};
  for (int k = 0; k < 3; k++)
    PG_EXPECT(!pg_present(rows[k]) || pg_numel(rows[k]) == width,
              "layernorm_backward: x is %s, %s is %s; it must be [%lld]", pg_shape_text(v.x), names[k],
              pg_shape_text(rows[k]), (long long)width);
  return PG_OK;
}

static pg_status expect_layernorm_modulate_backward(const pg_call *call) {
  const layernorm_modulate_backward_views v = layernorm_modulate_backward_of(call);
  pg_status status = expect_rows("layernorm_modulate_backward", v.dx, v.dy, v.x, v.mean, v.rstd, v.dresidual);
  if (status) return status;
  PG_EXPECT(v.x->ndim == 3 && is_row_per_image(v.scale, v.x),
            "layernorm_modulate_backward: x is %s, scale is %s; they must be [B,N,D] and [B,1,D] with rows in one piece",
            pg_shape_text(v.x), pg_shape_text(v.scale));
  PG_EXPECT(!pg_present(v.dshift) || (is_row_per_image(v.dshift, v.x) && pg_contiguous(v.dshift)),
            "layernorm_modulate_backward: x is %s, dshift is %s; it must be [B,1,D]", pg_shape_text(v.x),
            pg_shape_text(v.dshift));
  PG_EXPECT(!pg_present(v.dscale) || (is_row_per_image(v.dscale, v.x) && pg_contiguous(v.dscale)),
            "layernorm_modulate_backward: x is %s, dscale is %s; it must be [B,1,D]", pg_shape_text(v.x),
            pg_shape_text(v.dscale));
  return PG_OK;
}

#endif
