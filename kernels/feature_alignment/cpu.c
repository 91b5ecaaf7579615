#include "cpu.h"
#include "feature_alignment/check.h"
#include "feature_alignment/feature_alignment.h"

static const stat smallest_norm = (stat)1e-12;

static int64_t chunks_of(int64_t rows) { return (rows + PG_CHUNK_ROWS - 1) / PG_CHUNK_ROWS; }

static const real *row_of(const pg_view *v, int64_t r) {
  return (const real *)v->data + r / v->shape[1] * v->stride[0] + r % v->shape[1] * v->stride[1];
}

static stat inverse_norm(stat squares) {
  stat norm = (stat)sqrt((double)squares);
  return 1 / (norm < smallest_norm ? smallest_norm : norm);
}

/* Scratch: one partial sum a chunk of rows. */
int64_t PG_CPU(feature_alignment_scratch)(const pg_call *call) {
  return chunks_of(pg_numel(&call->v[1])) * (int64_t)sizeof(stat);
}

pg_status PG_CPU(feature_alignment)(const pg_call *call) {
  pg_status status = expect_feature_alignment(call);
  if (status) return status;
  const pg_view *p = &call->v[4], *z = &call->v[5];
  stat *inverse_p = call->v[1].data, *inverse_z = call->v[2].data, *cosine = call->v[3].data, *partial = call->scratch;
  int64_t rows = p->shape[0] * p->shape[1], width = p->shape[2], chunks = chunks_of(rows);
#pragma omp parallel for schedule(static)
  for (int64_t c = 0; c < chunks; c++) {
    int64_t last = (c + 1) * PG_CHUNK_ROWS < rows ? (c + 1) * PG_CHUNK_ROWS : rows;
    stat sum = 0;
    for (int64_t r = c * PG_CHUNK_ROWS; r < last; r++) {
      const real *a = row_of(p, r), *b = row_of(z, r);
      stat aa = 0, bb = 0, ab = 0;
#pragma omp simd reduction(+ : aa, bb, ab)
      for (int64_t j = 0; j < width; j++) {
        stat x = load(a[j]), y = load(b[j]);
        aa += x * x;
        bb += y * y;
        ab += x * y;
      }
      inverse_p[r] = inverse_norm(aa);
      inverse_z[r] = inverse_norm(bb);
      cosine[r] = ab * inverse_p[r] * inverse_z[r];
      sum += cosine[r];
    }
    partial[c] = sum;
  }
  stat sum = 0;
  for (int64_t c = 0; c < chunks; c++) sum += partial[c];
  *(stat *)call->v[0].data = -sum / (stat)rows;
  return PG_OK;
}

pg_status PG_CPU(feature_alignment_backward)(const pg_call *call) {
  pg_status status = expect_feature_alignment_backward(call);
  if (status) return status;
  const pg_view *p = &call->v[5], *z = &call->v[6];
  const stat *inverse_p = call->v[2].data, *inverse_z = call->v[3].data, *cosine = call->v[4].data;
  int64_t rows = p->shape[0] * p->shape[1], width = p->shape[2];
  stat coefficient = -*(const stat *)call->v[1].data / (stat)rows;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    const real *a = row_of(p, r), *b = row_of(z, r);
    real *d = (real *)call->v[0].data + r * width;
    stat along_z = coefficient * inverse_p[r] * inverse_z[r];
    stat along_p = inverse_p[r] < 1 / smallest_norm ? coefficient * cosine[r] * inverse_p[r] * inverse_p[r] : 0;
#pragma omp simd
    for (int64_t j = 0; j < width; j++) d[j] = store(along_z * load(b[j]) - along_p * load(a[j]));
  }
  return PG_OK;
}
