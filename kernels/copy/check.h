/* What the copy kernels of every device ask of their arguments (copy.h), and the views that they make of them. */
#ifndef PERIGEE_COPY_CHECK_H
#define PERIGEE_COPY_CHECK_H

#include "loop.h"

static pg_status expect_alike(const char *name, const pg_call *call) {
  const pg_view *y = &call->v[0], *x = &call->v[1];
  PG_EXPECT(y->dtype == x->dtype && pg_same_shape(y, x), "%s: y is %s, x is %s; shape and dtype must be the same", name,
            pg_shape_text(y), pg_shape_text(x));
  return PG_OK;
}

static pg_status expect_flip(const pg_call *call) {
  const pg_view *x = &call->v[1];
  PG_EXPECT(call->i[0] >= 0 && call->i[0] < x->ndim, "flip: x is %s, it has no dimension %lld", pg_shape_text(x),
            (long long)call->i[0] + 1);
  return expect_alike("flip", call);
}

static pg_status expect_arange(const pg_call *call) {
  PG_EXPECT(call->v[0].ndim == 1, "arange: y is %s, expected one dimension", pg_shape_text(&call->v[0]));
  return PG_OK;
}

/* Makes the loop over y and x. */
static pg_status expect_cast(const pg_call *call, pg_loop *loop) {
  const pg_view *y = &call->v[0], *x = &call->v[1], *const views[2] = {y, x};
  PG_EXPECT(PG_REAL == 0 || y->dtype == x->dtype, "cast: from dtype %d to %d: only the float32 instance converts", x->dtype,
            y->dtype);
  PG_EXPECT(pg_same_shape(y, x) && pg_contiguous(y) && pg_loop_make(loop, 2, views),
            "cast: y is %s, x is %s; they must have the same shape, y contiguous", pg_shape_text(y), pg_shape_text(x));
  return PG_OK;
}

/* Whether `part` fits into `whole` along `dim` from `start` on. */
static int fits(const pg_view *whole, const pg_view *part, int64_t dim, int64_t start) {
  if (whole->ndim != part->ndim || whole->dtype != part->dtype || dim < 0 || dim >= whole->ndim) return 0;
  for (int d = 0; d < whole->ndim; d++)
    if (d != dim && whole->shape[d] != part->shape[d]) return 0;
  return start >= 0 && start + part->shape[dim] <= whole->shape[dim];
}

static pg_status expect_concat(const pg_call *call) {
  const pg_view *y = &call->v[0];
  int64_t dim = call->i[0], start = 0;
  PG_EXPECT(dim >= 0 && dim < y->ndim, "concat: y is %s, it has no dimension %lld", pg_shape_text(y), (long long)dim + 1);
  for (int k = 1; k < call->n; k++) {
    if (!pg_present(call, k)) continue;
    PG_EXPECT(fits(y, &call->v[k], dim, start), "concat: y is %s, input %d is %s, at place %lld of dimension %lld",
              pg_shape_text(y), k, pg_shape_text(&call->v[k]), (long long)start + 1, (long long)dim + 1);
    start += call->v[k].shape[dim];
  }
  PG_EXPECT(start == y->shape[dim], "concat: y is %s, the inputs have %lld places in dimension %lld", pg_shape_text(y),
            (long long)start, (long long)dim + 1);
  return PG_OK;
}

static pg_status expect_narrow_backward(const pg_call *call) {
  const pg_view *dx = &call->v[0], *dy = &call->v[1];
  PG_EXPECT(fits(dx, dy, call->i[0], call->i[1]), "narrow_backward: dx is %s, dy is %s, at place %lld of dimension %lld",
            pg_shape_text(dx), pg_shape_text(dy), (long long)call->i[1] + 1, (long long)call->i[0] + 1);
  return PG_OK;
}

/* `size` places of dimension `dim` of a view, from `start` on. */
static pg_view narrowed(const pg_view *v, int64_t dim, int64_t start, int64_t size) {
  pg_view part = *v;
  part.data = (char *)v->data + start * v->stride[dim] * pg_dtype_bytes(v->dtype);
  part.shape[dim] = size;
  return part;
}

/* A view with dimension `dim` in reverse order. */
static pg_view reversed(const pg_view *v, int64_t dim) {
  pg_view back = narrowed(v, dim, v->shape[dim] - 1, v->shape[dim]);
  back.stride[dim] = -v->stride[dim];
  return back;
}

#endif
