#include "cpu.h"
#include "mse/check.h"
#include "mse/mse.h"

/* A sample is cut into pieces of this many elements, from the shape alone. */
enum { PIECE = 4096 };


/* Scratch: [samples, pieces] partial sums. */
int64_t PG_CPU(mse_scratch)(const pg_call *call) {
  const mse_views v = mse_of(call);
  int64_t samples = samples_of(v.a);
  return samples ? samples * pg_pieces(pg_numel(v.a) / samples, PIECE) * (int64_t)sizeof(stat) : 0;
}

static stat sum_of_squares(const real *a, const real *b, int64_t n) {
  stat sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    stat d = load(a[j]) - load(b[j]);
    sum += d * d;
  }
  return sum;
}

pg_status PG_CPU(mse)(const pg_call *call) {
  const mse_views v = mse_of(call);
  pg_status status = expect_mse(call);
  if (status) return status;
  int64_t samples = samples_of(v.a);
  int64_t n = pg_numel(v.a) / samples, pieces = pg_pieces(n, PIECE);
  stat *partial = call->scratch;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE;
    int64_t at = k / pieces * n + from;
    partial[k] = sum_of_squares((const real *)v.a->data + at, (const real *)v.b->data + at, length);
  }
  stat total = 0;
  for (int64_t s = 0; s < samples; s++) {
    stat sum = 0;
    for (int64_t k = 0; k < pieces; k++) sum += partial[s * pieces + k];
    if (pg_present(v.per_sample)) ((stat *)v.per_sample->data)[s] = sum / (stat)n;
    total += sum;
  }
  *(stat *)v.loss->data = total / (stat)pg_numel(v.a);
  return PG_OK;
}

pg_status PG_CPU(mse_backward)(const pg_call *call) {
  const mse_backward_views v = mse_backward_of(call);
  pg_status status = expect_mse_backward(call);
  if (status) return status;
  int64_t samples = samples_of(v.a);
  int64_t n = pg_numel(v.a) / samples, pieces = pg_pieces(n, PIECE);
  stat everywhere = pg_present(v.coefficient) ? 2 * *(const stat *)v.coefficient->data / (stat)pg_numel(v.a) : 0;
  const stat *each = v.sample_coefficient->data;
  int wants_db = pg_present(v.db);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t s = k / pieces, from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE;
    stat factor = everywhere + (each ? 2 * each[s] / (stat)n : 0);
    const real *x = (const real *)v.a->data + s * n + from, *y = (const real *)v.b->data + s * n + from;
    real *da = (real *)v.da->data + s * n + from;
    if (wants_db) {
      real *db = (real *)v.db->data + s * n + from;
#pragma omp simd
      for (int64_t j = 0; j < length; j++) {
        stat d = factor * (load(x[j]) - load(y[j]));
        da[j] = store(d);
        db[j] = store(-d);
      }
    } else {
#pragma omp simd
      for (int64_t j = 0; j < length; j++) da[j] = store(factor * (load(x[j]) - load(y[j])));
    }
  }
  return PG_OK;
}
