/* Whether a call keeps to the contract of matmul.h, for every device alike. */
#ifndef PERIGEE_MATMUL_CHECK_H
#define PERIGEE_MATMUL_CHECK_H

#include "activation/kinds.h"
#include "kernel.h"

/* The views' places. */
enum { MATMUL_OUT, MATMUL_PRE, MATMUL_SUMS, MATMUL_A, MATMUL_B, MATMUL_BIAS, MATMUL_AUX };

/* Matrices in a batch. */
static int64_t batch_count(const pg_view *v) {
  int64_t n = 1;
  for (int d = 0; d < v->ndim - 2; d++) n *= v->shape[d];
  return n;
}

static pg_status matmul_check(const pg_call *call) {
  PG_EXPECT(pg_present(call, MATMUL_OUT) && pg_present(call, MATMUL_A) && pg_present(call, MATMUL_B),
            "matmul: out, a or b is missing");
  const pg_view *out = &call->v[MATMUL_OUT], *a = &call->v[MATMUL_A], *b = &call->v[MATMUL_B];
  PG_EXPECT(out->ndim >= 2 && a->ndim >= 2 && b->ndim >= 2 && a->ndim <= out->ndim && b->ndim <= out->ndim,
            "matmul: a is %s, b is %s, out is %s; each needs two dimensions or more, out as many as the others",
            pg_shape_text(a), pg_shape_text(b), pg_shape_text(out));
  int ta = call->i[0] != 0, tb = call->i[1] != 0;
  int64_t m = a->shape[a->ndim - 2 + ta], k = a->shape[a->ndim - 1 - ta];
  int64_t inner = b->shape[b->ndim - 2 + tb], n = b->shape[b->ndim - 1 - tb];
  PG_EXPECT(k == inner && out->shape[out->ndim - 2] == m && out->shape[out->ndim - 1] == n,
            "matmul: a is %s%s, b is %s%s, out is %s; the inner sizes must match", pg_shape_text(a),
            ta ? " transposed" : "", pg_shape_text(b), tb ? " transposed" : "", pg_shape_text(out));
  for (int d = 0; d < out->ndim - 2; d++) {
    for (int k2 = MATMUL_A; k2 <= MATMUL_B; k2++) {
      const pg_view *v = &call->v[k2];
      int shift = out->ndim - v->ndim;
      PG_EXPECT(d < shift || v->shape[d - shift] == 1 || v->shape[d - shift] == out->shape[d],
                "matmul: the batch dimensions of %s do not broadcast to those of out, %s", pg_shape_text(v),
                pg_shape_text(out));
    }
  }
  int64_t activation = call->i[2];
  PG_EXPECT(activation >= 0 && activation <= 2 * ACTIVATION_DERIVATIVE,
            "matmul: activation %lld; 0 to %d exist", (long long)activation, 2 * ACTIVATION_DERIVATIVE);
  PG_EXPECT(!pg_present(call, MATMUL_PRE) || pg_same_shape(&call->v[MATMUL_PRE], out),
            "matmul: pre is %s, out is %s; they must match", pg_shape_text(&call->v[MATMUL_PRE]), pg_shape_text(out));
  PG_EXPECT(!pg_present(call, MATMUL_BIAS) || pg_numel(&call->v[MATMUL_BIAS]) == n, "matmul: bias is %s, out is %s",
            pg_shape_text(&call->v[MATMUL_BIAS]), pg_shape_text(out));
  PG_EXPECT(activation <= ACTIVATION_DERIVATIVE ||
              (pg_present(call, MATMUL_AUX) && pg_same_shape(&call->v[MATMUL_AUX], out)),
            "matmul: activation %lld needs aux of out's shape %s", (long long)activation, pg_shape_text(out));
  if (!pg_present(call, MATMUL_SUMS)) return PG_OK;
  PG_EXPECT(ta && a->ndim == 2 && out->ndim == 2 && activation == ACTIVATION_NONE && !pg_present(call, MATMUL_PRE) &&
              !pg_present(call, MATMUL_BIAS) && pg_numel(&call->v[MATMUL_SUMS]) == m && n > 0,
            "matmul: sums is %s, a is %s%s, out is %s; sums go with one transposed matrix a, and with no bias, pre or activation",
            pg_shape_text(&call->v[MATMUL_SUMS]), pg_shape_text(a), ta ? " transposed" : "", pg_shape_text(out));
  return PG_OK;
}

#endif
