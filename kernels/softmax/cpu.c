#include "cpu.h"
#include "softmax/check.h"
#include "softmax/softmax.h"

static stat row_maximum(const real *x, int64_t n) {
  stat m = (stat)-INFINITY;
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; i++) m = load(x[i]) > m ? load(x[i]) : m;
  return m > (stat)-INFINITY ? m : 0; /* a row of -inf: no NaN from inf - inf here, 0/0 below */
}

static void softmax_row(real *y, const real *x, int64_t n) {
  stat m = row_maximum(x, n), sum = 0;
#if PG_REAL == 2 /* y cannot hold the exponentials exactly: they are computed twice */
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += pg_exp(load(x[i]) - m);
  stat scale = 1 / sum;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = store(pg_exp(load(x[i]) - m) * scale);
#else
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) {
    y[i] = pg_exp(x[i] - m);
    sum += y[i];
  }
  stat scale = 1 / sum;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] *= scale;
#endif
}

static void log_softmax_row(real *y, const real *x, int64_t n) {
  stat m = row_maximum(x, n), sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += pg_exp(load(x[i]) - m);
  stat log_sum = pg_log(sum);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = store(load(x[i]) - m - log_sum);
}

static void softmax_backward_row(real *dx, const real *dy, const real *y, int64_t n) {
  stat dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; i++) dot += load(dy[i]) * load(y[i]);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) dx[i] = store(load(y[i]) * (load(dy[i]) - dot));
}

static void log_softmax_backward_row(real *dx, const real *dy, const real *y, int64_t n) {
  stat sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += load(dy[i]);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) dx[i] = store(load(dy[i]) - pg_exp(load(y[i])) * sum);
}

static pg_status forward(const char *name, const pg_view *y, const pg_view *x,
                         void (*row)(real *y, const real *x, int64_t n)) {
  int64_t rows, n;
  pg_status status = forward_rows_of(name, y, x, &rows, &n);
  if (status) return status;
#pragma omp parallel for schedule(static) if (rows * n > 4096)
  for (int64_t r = 0; r < rows; r++) row((real *)y->data + r * n, (const real *)x->data + r * n, n);
  return PG_OK;
}

static pg_status backward(const char *name, const pg_view *dx, const pg_view *dy, const pg_view *y,
                          void (*row)(real *dx, const real *dy, const real *y, int64_t n)) {
  int64_t rows, n;
  pg_status status = backward_rows_of(name, dx, dy, y, &rows, &n);
  if (status) return status;
#pragma omp parallel for schedule(static) if (rows * n > 4096)
  for (int64_t r = 0; r < rows; r++)
    row((real *)dx->data + r * n, (const real *)dy->data + r * n, (const real *)y->data + r * n, n);
  return PG_OK;
}

pg_status PG_CPU(softmax)(const pg_call *call) {
  const softmax_views v = softmax_of(call);
  return forward("softmax", v.y, v.x, softmax_row);
}

pg_status PG_CPU(log_softmax)(const pg_call *call) {
  const log_softmax_views v = log_softmax_of(call);
  return forward("log_softmax", v.y, v.x, log_softmax_row);
}

pg_status PG_CPU(softmax_backward)(const pg_call *call) {
  const softmax_backward_views v = softmax_backward_of(call);
  return backward("softmax_backward", v.dx, v.dy, v.y, softmax_backward_row);
}

pg_status PG_CPU(log_softmax_backward)(const pg_call *call) {
  const log_softmax_backward_views v = log_softmax_backward_of(call);
  return backward("log_softmax_backward", v.dx, v.dy, v.y, log_softmax_backward_row);
}
