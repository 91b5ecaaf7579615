/* Checks of the copy kernels' arguments, on every device (copy.h), and the views that they make of them. */
#ifndef PERIGEE_COPY_CHECK_H
#define PERIGEE_COPY_CHECK_H

#include "copy/copy.h"
#include "loop.h"

static pg_status expect_alike(const char *name, const pg_view *y, const pg_view *x) {
  PG_EXPECT(y->dtype == x->dtype && pg_same_shape(y, x), "%s: y is %s, x is %s; shape and dtype must be the same", name,
            pg_shape_text(y), pg_shape_text(x));
  return PG_OK;
}

static pg_status expect_flip(const pg_call *call) {
  const flip_views v = flip_of(call);
  const int64_t dim = flip_ints_of(call).dim;
  PG_EXPECT(dim >= 0 && dim < v.x->ndim, "flip: x is %s, it has no dimension %lld", pg_shape_text(v.x),
            (long long)dim + 1);
  return expect_alike("flip", v.y, v.x);
}

static pg_status expect_arange(const pg_call *call) {
  const arange_views v = arange_of(call);
  PG_EXPECT(v.y->ndim == 1, "arange: y is %s, expected one dimension", pg_shape_text(v.y));
  return PG_OK;
}

/* Makes the loop over y and x. */
static pg_status expect_cast(const pg_call *call, pg_loop *loop) {
  const cast_views v = cast_of(call);
  const pg_view *const views[2] = {v.y, v.x};
  PG_EXPECT(PG_REAL == 0 || v.y->dtype == v.x->dtype, "cast: from %s to %s: only the float32 instance converts",
            pg_dtype_name(v.x->dtype), pg_dtype_name(v.y->dtype));
  PG_EXPECT(pg_same_shape(v.y, v.x) && pg_contiguous(v.y) && pg_loop_make(loop, 2, views),
            "cast: y is %s, x is %s; they must have the same shape, y contiguous", pg_shape_text(v.y),
            pg_shape_text(v.x));
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
  const concat_views v = concat_of(call);
  int64_t dim = concat_ints_of(call).dim, start = 0;
  PG_EXPECT(dim >= 0 && dim < v.y->ndim, "concat: y is %s, it has no dimension %lld", pg_shape_text(v.y),
            (long long)dim + 1);
  for (int k = 1; k < call->n; k++) {
    const pg_view *x = pg_view_at(call, k);
    if (!pg_present(x)) continue;
    PG_EXPECT(fits(v.y, x, dim, start), "concat: y is %s, input %d is %s, at place %lld of dimension %lld",
              pg_shape_text(v.y), k, pg_shape_text(x), (long long)start + 1, (long long)dim + 1);
    start += x->shape[dim];
  }
  PG_EXPECT(start == v.y->shape[dim], "concat: y is %s, the inputs have %lld places in dimension %lld",
            pg_shape_text(v.y), (long long)start, (long long)dim + 1);
  return PG_OK;
}

static pg_status expect_narrow_backward(const pg_call *call) {
  const narrow_backward_views v = narrow_backward_of(call);
  const narrow_backward_ints at = narrow_backward_ints_of(call);
  PG_EXPECT(fits(v.dx, v.dy, at.dim, at.start), "narrow_backward: dx is %s, dy is %s, at place %lld of dimension %lld",
            pg_shape_text(v.dx), pg_shape_text(v.dy), (long long)at.start + 1, (long long)at.dim + 1);
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
