/* Cross-entropy on the CPU: rows are shared out, their losses added in order. */
#include "cpu.h"
#include "cross_entropy/check.h"
#include "cross_entropy/cross_entropy.h"

enum { PARALLEL = 16384 }; /* logits */

static inline int64_t label_at(const pg_view *labels, int64_t row) {
  return labels->dtype == PG_INT32 ? ((const int32_t *)labels->data)[row] : ((const int64_t *)labels->data)[row];
}

static pg_status check(const char *name, const pg_view *logits, const pg_view *labels) {
  pg_status status = expect_cross_entropy(name, logits, labels);
  if (status) return status;
  if (!labels->data) return PG_OK; /* planning */
  for (int64_t r = 0; r < labels->shape[0]; r++) {
    int64_t label = label_at(labels, r);
    PG_EXPECT(label >= 0 && label < logits->shape[1], "%s: label %lld in row %lld; expected 0 to below %lld",
              name, (long long)label, (long long)r + 1, (long long)logits->shape[1]);
  }
  return PG_OK;
}

int64_t PG_CPU(cross_entropy_scratch)(const pg_call *call) {
  const cross_entropy_views v = cross_entropy_of(call);
  return v.logits->ndim == 2 ? v.logits->shape[0] * (int64_t)sizeof(stat) : 0;
}

static stat log_sum_exp(const real *x, int64_t n) {
  stat highest = load(x[0]), sum = 0;
  for (int64_t c = 1; c < n; c++) highest = load(x[c]) > highest ? load(x[c]) : highest;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < n; c++) sum += pg_exp(load(x[c]) - highest);
  return highest + pg_log(sum);
}

pg_status PG_CPU(cross_entropy)(const pg_call *call) {
  const cross_entropy_views v = cross_entropy_of(call);
  pg_status status = check("cross_entropy", v.logits, v.labels);
  if (status) return status;
  int64_t rows = v.logits->shape[0], classes = v.logits->shape[1];
  const real *logits = v.logits->data;
  stat *lse = v.lse->data, *losses = call->scratch, smoothing = (stat)cross_entropy_floats_of(call).smoothing;
#pragma omp parallel for schedule(static) if (rows * classes > PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *x = logits + r * classes;
    stat sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < classes; c++) sum += load(x[c]);
    lse[r] = log_sum_exp(x, classes);
    stat at_label = load(x[label_at(v.labels, r)]);
    losses[r] = lse[r] - at_label;
    if (smoothing > 0) losses[r] += smoothing * (at_label - sum / (stat)classes);
  }
  double total = 0;
  for (int64_t r = 0; r < rows; r++) total += (double)losses[r];
  *(stat *)v.loss->data = (stat)(total / (double)rows);
  return PG_OK;
}

pg_status PG_CPU(cross_entropy_backward)(const pg_call *call) {
  const cross_entropy_backward_views v = cross_entropy_backward_of(call);
  pg_status status = check("cross_entropy_backward", v.logits, v.labels);
  if (status) return status;
  int64_t rows = v.logits->shape[0], classes = v.logits->shape[1];
  const real *logits = v.logits->data;
  const stat *lse = v.lse->data;
  real *dlogits = v.dlogits->data;
  stat scale = *(const stat *)v.dloss->data / (stat)rows,
       smoothing = (stat)cross_entropy_backward_floats_of(call).smoothing;
#pragma omp parallel for schedule(static) if (rows * classes > PARALLEL)
  for (int64_t r = 0; r < rows; r++) {
    const real *x = logits + r * classes;
    real *dx = dlogits + r * classes;
    int64_t label = label_at(v.labels, r);
    stat at_label = scale * (pg_exp(load(x[label]) - lse[r]) - smoothing / (stat)classes - (1 - smoothing));
#pragma omp simd
    for (int64_t c = 0; c < classes; c++)
      dx[c] = store(scale * (pg_exp(load(x[c]) - lse[r]) - smoothing / (stat)classes));
    dx[label] = store(at_label);
  }
  return PG_OK;
}
