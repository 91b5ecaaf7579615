/* Whether a call keeps to the contract of matmul.h, for every device alike. */
#ifndef PERIGEE_MATMUL_CHECK_H
#define PERIGEE_MATMUL_CHECK_H

#include "activation/kinds.h"
#include "matmul/matmul.h"

/* Matrices in a batch. */
static int64_t batch_count(const pg_view *v) {
  int64_t n = 1;
  for (int d = 0; d < v->ndim - 2; d++) n *= v->shape[d];
  return n;
}

static pg_status expect_broadcast(const pg_view *v, const pg_view *out) {
  for (int d = 0, shift = out->ndim - v->ndim; d < v->ndim - 2; d++)
    PG_EXPECT(v->shape[d] == 1 || v->shape[d] == out->shape[d + shift],
              "matmul: the batch dimensions of %s do not broadcast to those of out, %s", pg_shape_text(v),
              pg_shape_text(out));
  return PG_OK;
}

/* Checks of pre, bias and aux, for an out of n columns. */
static pg_status expect_epilogue(const matmul_views *v, int64_t activation, int64_t n) {
  PG_EXPECT(activation >= 0 && activation <= 2 * ACTIVATION_DERIVATIVE, "matmul: activation %lld; 0 to %d exist",
            (long long)activation, 2 * ACTIVATION_DERIVATIVE);
  PG_EXPECT(!pg_present(v->pre) || pg_same_shape(v->pre, v->out), "matmul: pre is %s, out is %s; they must match",
            pg_shape_text(v->pre), pg_shape_text(v->out));
  PG_EXPECT(!pg_present(v->bias) || pg_numel(v->bias) == n, "matmul: bias is %s, out is %s", pg_shape_text(v->bias),
            pg_shape_text(v->out));
  PG_EXPECT(activation <= ACTIVATION_DERIVATIVE || pg_same_shape(v->aux, v->out),
            "matmul: activation %lld needs aux of out's shape %s", (long long)activation, pg_shape_text(v->out));
  return PG_OK;
}

static pg_status expect_column_sums(const matmul_views *v, int64_t activation, int64_t n) {
  if (!pg_present(v->column_sums)) return PG_OK;
  PG_EXPECT(pg_numel(v->column_sums) == n && activation > ACTIVATION_DERIVATIVE && !pg_present(v->bias) &&
              !pg_present(v->sums) && pg_numel(v->out) > 0,
            "matmul: column_sums is %s, out is %s, activation %lld; they go with a derivative, and with no bias or sums",
            pg_shape_text(v->column_sums), pg_shape_text(v->out), (long long)activation);
  return PG_OK;
}

static pg_status matmul_check(const pg_call *call) {
  const matmul_views v = matmul_of(call);
  const matmul_ints i = matmul_ints_of(call);
  const pg_view *out = v.out, *a = v.a, *b = v.b;
  PG_EXPECT(pg_present(out) && pg_present(a) && pg_present(b), "matmul: out, a or b is missing");
  PG_EXPECT(out->ndim >= 2 && a->ndim >= 2 && b->ndim >= 2 && a->ndim <= out->ndim && b->ndim <= out->ndim,
            "matmul: a is %s, b is %s, out is %s; each needs two dimensions or more, out as many as the others",
            pg_shape_text(a), pg_shape_text(b), pg_shape_text(out));
  int ta = i.transpose_a != 0, tb = i.transpose_b != 0;
  int64_t m = a->shape[a->ndim - 2 + ta], k = a->shape[a->ndim - 1 - ta];
  int64_t inner = b->shape[b->ndim - 2 + tb], n = b->shape[b->ndim - 1 - tb];
  PG_EXPECT(k == inner && out->shape[out->ndim - 2] == m && out->shape[out->ndim - 1] == n,
            "matmul: a is %s%s, b is %s%s, out is %s; the inner sizes must match", pg_shape_text(a),
            ta ? " transposed" : "", pg_shape_text(b), tb ? " transposed" : "", pg_shape_text(out));
  pg_status status = expect_broadcast(a, out);
  if (status == PG_OK) status = expect_broadcast(b, out);
  if (status == PG_OK) status = expect_epilogue(&v, i.activation, n);
  if (status == PG_OK) status = expect_column_sums(&v, i.activation, n);
  if (status || !pg_present(v.sums)) return status;
  PG_EXPECT(ta && a->ndim == 2 && out->ndim == 2 && i.activation == ACTIVATION_NONE && !pg_present(v.pre) &&
              !pg_present(v.bias) && pg_numel(v.sums) == m && n > 0,
            "matmul: sums is %s, a is %s%s, out is %s; sums go with one transposed matrix a, and with no bias, pre or activation",
            pg_shape_text(v.sums), pg_shape_text(a), ta ? " transposed" : "", pg_shape_text(out));
  return PG_OK;
}

#endif
