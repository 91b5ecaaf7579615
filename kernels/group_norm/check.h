/* Checks of the group_norm kernels' arguments, on every device (group_norm.h), and their sizes. */
#ifndef PERIGEE_GROUP_NORM_CHECK_H
#define PERIGEE_GROUP_NORM_CHECK_H

#include "activation/kinds.h"
#include "group_norm/group_norm.h"

/* x is [images, groups, members, size]: a plane is one channel of one image, `size` elements side by side. */
typedef struct group_sizes {
  int64_t images, channels, groups, members, size;
} group_sizes;

static group_sizes group_sizes_of(const pg_view *x, int64_t groups) {
  group_sizes n = {x->shape[0], x->shape[1], groups, x->shape[1] / groups, 1};
  for (int d = 2; d < x->ndim; d++) n.size *= x->shape[d];
  return n;
}

static pg_status expect_groups(const char *name, const pg_view *x, int64_t groups, int64_t activation) {
  PG_EXPECT(x->ndim >= 2 && pg_numel(x) > 0, "%s: x is %s; expected [B,C,..], none of them 0", name, pg_shape_text(x));
  PG_EXPECT(groups >= 1 && x->shape[1] % groups == 0, "%s: x is %s; its %lld channels do not divide into %lld groups",
            name, pg_shape_text(x), (long long)x->shape[1], (long long)groups);
  PG_EXPECT(activation >= 0 && activation < ACTIVATION_END, "%s: unknown activation %lld", name, (long long)activation);
  return PG_OK;
}

static pg_status expect_channel_row(const char *name, const char *row, const pg_view *v, const pg_view *x) {
  PG_EXPECT(!pg_present(v) || (v->ndim == 1 && v->shape[0] == x->shape[1]), "%s: x is %s, %s is %s; it must be [%lld]",
            name, pg_shape_text(x), row, pg_shape_text(v), (long long)x->shape[1]);
  return PG_OK;
}

static pg_status expect_statistics(const char *name, const pg_view *x, const pg_view *mean, const pg_view *rstd,
                                   int64_t groups) {
  PG_EXPECT(pg_numel(mean) == x->shape[0] * groups && pg_numel(rstd) == pg_numel(mean),
            "%s: x is %s, mean is %s, rstd is %s; they must be [%lld,%lld]", name, pg_shape_text(x),
            pg_shape_text(mean), pg_shape_text(rstd), (long long)x->shape[0], (long long)groups);
  return PG_OK;
}

static pg_status expect_group_norm(const pg_call *call) {
  static const char name[] = "group_norm";
  const group_norm_views v = group_norm_of(call);
  const group_norm_ints i = group_norm_ints_of(call);
  pg_status status = expect_groups(name, v.x, i.groups, i.activation);
  if (!status) status = expect_channel_row(name, "weight", v.weight, v.x);
  if (!status) status = expect_channel_row(name, "bias", v.bias, v.x);
  if (!status) status = expect_statistics(name, v.x, v.mean, v.rstd, i.groups);
  if (status) return status;
  PG_EXPECT(pg_same_shape(v.x, v.y), "%s: x is %s, y is %s; they must have one shape", name, pg_shape_text(v.x),
            pg_shape_text(v.y));
  return PG_OK;
}

static pg_status expect_group_norm_backward(const pg_call *call) {
  static const char name[] = "group_norm_backward";
  const group_norm_backward_views v = group_norm_backward_of(call);
  const group_norm_backward_ints i = group_norm_backward_ints_of(call);
  const pg_view *const rows[] = {v.dweight, v.dbias, v.weight, v.bias};
  static const char *const names[] = {"dweight", "dbias", "weight", "bias"};
  pg_status status = expect_groups(name, v.x, i.groups, i.activation);
  for (int k = 0; k < 4 && !status; k++) status = expect_channel_row(name, names[k], rows[k], v.x);
  if (!status) status = expect_statistics(name, v.x, v.mean, v.rstd, i.groups);
  if (status) return status;
  PG_EXPECT(pg_same_shape(v.x, v.dy) && pg_same_shape(v.x, v.dx),
            "%s: x is %s, dy is %s, dx is %s; they must have one shape", name, pg_shape_text(v.x), pg_shape_text(v.dy),
            pg_shape_text(v.dx));
  return PG_OK;
}

#endif
