/* Checks of the gated_residual kernels' arguments, on every device (gated_residual.h). */
#ifndef PERIGEE_GATED_RESIDUAL_CHECK_H
#define PERIGEE_GATED_RESIDUAL_CHECK_H

#include "gated_residual/gated_residual.h"

static int is_gate(const pg_view *gate, const pg_view *x) {
  return gate->ndim == 3 && (gate->shape[0] == x->shape[0] || gate->shape[0] == 1) && gate->shape[1] == 1 &&
         gate->shape[2] == x->shape[2] && (gate->shape[2] == 1 || gate->stride[2] == 1);
}

/* Rows over which one gate stands: an image's, or all of them. */
static int64_t rows_a_gate(const pg_view *gate, const pg_view *x) {
  return gate->shape[0] == x->shape[0] ? x->shape[1] : x->shape[0] * x->shape[1];
}

static pg_status expect_gated_residual(const pg_call *call) {
  const gated_residual_views v = gated_residual_of(call);
  PG_EXPECT(v.x->ndim == 3 && pg_same_shape(v.x, v.y) && pg_same_shape(v.x, v.out),
            "gated_residual: x is %s, y is %s, out is %s; all must be [B,N,D]", pg_shape_text(v.x), pg_shape_text(v.y),
            pg_shape_text(v.out));
  PG_EXPECT(is_gate(v.gate, v.x),
            "gated_residual: x is %s, gate is %s; it must be [B,1,D] or [1,1,D] with rows in one piece",
            pg_shape_text(v.x), pg_shape_text(v.gate));
  return PG_OK;
}

static pg_status expect_gated_residual_backward(const pg_call *call) {
  const gated_residual_backward_views v = gated_residual_backward_of(call);
  PG_EXPECT(v.dout->ndim == 3 && pg_same_shape(v.dout, v.y) && pg_same_shape(v.dout, v.dy),
            "gated_residual_backward: dout is %s, y is %s, dy is %s; all must be [B,N,D]", pg_shape_text(v.dout),
            pg_shape_text(v.y), pg_shape_text(v.dy));
  PG_EXPECT(is_gate(v.gate, v.dout) && (!pg_present(v.dgate) || pg_same_shape(v.gate, v.dgate)),
            "gated_residual_backward: dout is %s, gate is %s; gate and dgate must be [B,1,D] or [1,1,D]",
            pg_shape_text(v.dout), pg_shape_text(v.gate));
  PG_EXPECT(!pg_present(v.dbias) || pg_numel(v.dbias) == v.dout->shape[2],
            "gated_residual_backward: dout is %s, dbias is %s; it must be [D]", pg_shape_text(v.dout),
            pg_shape_text(v.dbias));
  return PG_OK;
}

/* The sums that a chunk of rows is added up in: none, or one of [dgate], [dbias], [dgate, dbias]. */
static int64_t summed_rows(const gated_residual_backward_views *v) { return pg_present(v->dgate) + pg_present(v->dbias); }

#endif
