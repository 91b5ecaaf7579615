/* What the gated_residual kernels of every device ask of their arguments (gated_residual.h). */
#ifndef PERIGEE_GATED_RESIDUAL_CHECK_H
#define PERIGEE_GATED_RESIDUAL_CHECK_H

#include "kernel.h"

static int is_gate(const pg_view *gate, const pg_view *x) {
  return gate->ndim == 3 && (gate->shape[0] == x->shape[0] || gate->shape[0] == 1) && gate->shape[1] == 1 &&
         gate->shape[2] == x->shape[2] && (gate->shape[2] == 1 || gate->stride[2] == 1);
}

/* Rows over which one gate stands: an image's, or all of them. */
static int64_t rows_a_gate(const pg_view *gate, const pg_view *x) {
  return gate->shape[0] == x->shape[0] ? x->shape[1] : x->shape[0] * x->shape[1];
}

static pg_status expect_gated_residual(const pg_call *call) {
  const pg_view *x = &call->v[1], *gate = &call->v[3];
  PG_EXPECT(x->ndim == 3 && pg_same_shape(x, &call->v[2]) && pg_same_shape(x, &call->v[0]),
            "gated_residual: x is %s, y is %s, out is %s; all must be [B,N,D]", pg_shape_text(x), pg_shape_text(&call->v[2]),
            pg_shape_text(&call->v[0]));
  PG_EXPECT(is_gate(gate, x), "gated_residual: x is %s, gate is %s; it must be [B,1,D] or [1,1,D] with rows in one piece",
            pg_shape_text(x), pg_shape_text(gate));
  return PG_OK;
}

static pg_status expect_gated_residual_backward(const pg_call *call) {
  const pg_view *dout = &call->v[2], *y = &call->v[3], *gate = &call->v[4];
  PG_EXPECT(dout->ndim == 3 && pg_same_shape(dout, y) && pg_same_shape(dout, &call->v[0]),
            "gated_residual_backward: dout is %s, y is %s, dy is %s; all must be [B,N,D]", pg_shape_text(dout),
            pg_shape_text(y), pg_shape_text(&call->v[0]));
  PG_EXPECT(is_gate(gate, dout) && (!pg_present(call, 1) || pg_same_shape(gate, &call->v[1])),
            "gated_residual_backward: dout is %s, gate is %s; gate and dgate must be [B,1,D] or [1,1,D]",
            pg_shape_text(dout), pg_shape_text(gate));
  return PG_OK;
}

#endif
