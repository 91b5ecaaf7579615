/* Checks of the softmax kernels' arguments, on every device (softmax.h). */
#ifndef PERIGEE_SOFTMAX_CHECK_H
#define PERIGEE_SOFTMAX_CHECK_H

#include "softmax/softmax.h"

/* An error unless a view is y's like: of its shape, real, contiguous. */
static pg_status expect_rows(const char *name, const char *which, const pg_view *v, const pg_view *y) {
  PG_EXPECT(v->dtype == PG_REAL && pg_same_shape(v, y) && pg_contiguous(v),
            "%s: %s is %s %s; expected %s %s, contiguous", name, which, pg_dtype_name(v->dtype), pg_shape_text(v),
            pg_dtype_name(PG_REAL), pg_shape_text(y));
  return PG_OK;
}

/* Rows, and their length, of a tensor of at least one dimension. */
static pg_status rows_of(const char *name, const pg_view *y, int64_t *rows, int64_t *n) {
  PG_EXPECT(y->ndim >= 1, "%s: a tensor without dimensions has no last one", name);
  *n = y->shape[y->ndim - 1];
  *rows = *n ? pg_numel(y) / *n : 0;
  return expect_rows(name, "the result", y, y);
}

/* Rows of softmax and log_softmax. */
static pg_status forward_rows_of(const char *name, const pg_view *y, const pg_view *x, int64_t *rows, int64_t *n) {
  pg_status status = rows_of(name, y, rows, n);
  return status ? status : expect_rows(name, "x", x, y);
}

/* Rows of their backward kernels. */
static pg_status backward_rows_of(const char *name, const pg_view *dx, const pg_view *dy, const pg_view *y,
                                  int64_t *rows, int64_t *n) {
  pg_status status = rows_of(name, dx, rows, n);
  if (status == PG_OK) status = expect_rows(name, "dy", dy, dx);
  return status ? status : expect_rows(name, "y", y, dx);
}

#endif
