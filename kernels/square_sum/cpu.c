#include "cpu.h"
#include "square_sum/check.h"
#include "square_sum/square_sum.h"

enum { CHUNK = 4096 };

int64_t PG_CPU(square_sum_scratch)(const pg_call *call) {
  const square_sum_views v = square_sum_of(call);
  return pg_pieces(pg_numel(v.x), CHUNK) * (int64_t)sizeof(double);
}

/* Σ x² of one chunk. */
static double chunk_square_sum(const real *x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; k++) sum += (double)load(x[k]) * (double)load(x[k]);
  return sum;
}

pg_status PG_CPU(square_sum)(const pg_call *call) {
  const square_sum_views v = square_sum_of(call);
  pg_status status = expect_square_sum(call);
  if (status) return status;
  const int64_t n = pg_numel(v.x), chunks = pg_pieces(n, CHUNK);
  const real *values = v.x->data;
  double *partial = call->scratch;
#pragma omp parallel for schedule(static) if (chunks > 4)
  for (int64_t c = 0; c < chunks; c++)
    partial[c] = chunk_square_sum(values + c * CHUNK, n - c * CHUNK < CHUNK ? n - c * CHUNK : CHUNK);
  double total = 0;
  for (int64_t c = 0; c < chunks; c++) total += partial[c];
  *(stat *)v.sum->data = (stat)total;
  return PG_OK;
}
