#include "cpu.h"
#include "mse/check.h"
#include "mse/mse.h"

/* A sample is cut into pieces of this many elements, from the shape alone. */
enum { PIECE = 4096 };

static int64_t pieces_of(int64_t n) { return (n + PIECE - 1) / PIECE; }

/* Scratch: [samples, pieces] partial sums. */
int64_t PG_CPU(mse_scratch)(const pg_call *call) {
  int64_t samples = samples_of(&call->v[2]);
  return samples ? samples * pieces_of(pg_numel(&call->v[2]) / samples) * (int64_t)sizeof(stat) : 0;
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
  pg_status status = expect_mse(call);
  if (status) return status;
  const pg_view *a = &call->v[2], *b = &call->v[3];
  int64_t samples = samples_of(a);
  int64_t n = pg_numel(a) / samples, pieces = pieces_of(n);
  stat *partial = call->scratch;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE;
    int64_t at = k / pieces * n + from;
    partial[k] = sum_of_squares((const real *)a->data + at, (const real *)b->data + at, length);
  }
  stat total = 0;
  for (int64_t s = 0; s < samples; s++) {
    stat sum = 0;
    for (int64_t k = 0; k < pieces; k++) sum += partial[s * pieces + k];
    if (pg_present(call, 1)) ((stat *)call->v[1].data)[s] = sum / (stat)n;
    total += sum;
  }
  *(stat *)call->v[0].data = total / (stat)pg_numel(a);
  return PG_OK;
}

pg_status PG_CPU(mse_backward)(const pg_call *call) {
  pg_status status = expect_mse_backward(call);
  if (status) return status;
  const pg_view *a = &call->v[4], *b = &call->v[5];
  int64_t samples = samples_of(a);
  int64_t n = pg_numel(a) / samples, pieces = pieces_of(n);
  stat everywhere = pg_present(call, 2) ? 2 * *(const stat *)call->v[2].data / (stat)pg_numel(a) : 0;
  const stat *each = pg_present(call, 3) ? call->v[3].data : NULL;
  int wants_db = pg_present(call, 1);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t s = k / pieces, from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE;
    stat factor = everywhere + (each ? 2 * each[s] / (stat)n : 0);
    const real *x = (const real *)a->data + s * n + from, *y = (const real *)b->data + s * n + from;
    real *da = (real *)call->v[0].data + s * n + from;
    if (wants_db) {
      real *db = (real *)call->v[1].data + s * n + from;
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
