#include "cpu.h"
#include "feature_alignment/check.h"
#include "feature_alignment/feature_alignment.h"

static const stat smallest_norm = (stat)1e-12;


static const real *row_of(const pg_view *v, int64_t r) {
  return (const real *)v->data + r / v->shape[1] * v->stride[0] + r % v->shape[1] * v->stride[1];
}

static stat inverse_norm(stat squares) {
  stat norm = (stat)sqrt((double)squares);
  return 1 / (norm < smallest_norm ? smallest_norm : norm);
}

/* Scratch: one partial sum a chunk of rows. */
int64_t PG_CPU(feature_alignment_scratch)(const pg_call *call) {
  const feature_alignment_views v = feature_alignment_of(call);
  return pg_pieces(pg_numel(v.inverse_norm_p), PG_CHUNK_ROWS) * (int64_t)sizeof(stat);
}

pg_status PG_CPU(feature_alignment)(const pg_call *call) {
  const feature_alignment_views v = feature_alignment_of(call);
  pg_status status = expect_feature_alignment(call);
  if (status) return status;
  stat *inverse_p = v.inverse_norm_p->data, *inverse_z = v.inverse_norm_z->data, *cosine = v.cosine->data,
       *partial = call->scratch;
  int64_t rows = v.p->shape[0] * v.p->shape[1], width = v.p->shape[2], chunks = pg_pieces(rows, PG_CHUNK_ROWS);
#pragma omp parallel for schedule(static)
  for (int64_t c = 0; c < chunks; c++) {
    int64_t last = (c + 1) * PG_CHUNK_ROWS < rows ? (c + 1) * PG_CHUNK_ROWS : rows;
    stat sum = 0;
    for (int64_t r = c * PG_CHUNK_ROWS; r < last; r++) {
      const real *a = row_of(v.p, r), *b = row_of(v.z, r);
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
  *(stat *)v.loss->data = -sum / (stat)rows;
  return PG_OK;
}

pg_status PG_CPU(feature_alignment_backward)(const pg_call *call) {
  const feature_alignment_backward_views v = feature_alignment_backward_of(call);
  pg_status status = expect_feature_alignment_backward(call);
  if (status) return status;
  const stat *inverse_p = v.inverse_norm_p->data, *inverse_z = v.inverse_norm_z->data, *cosine = v.cosine->data;
  int64_t rows = v.p->shape[0] * v.p->shape[1], width = v.p->shape[2];
  stat coefficient = -*(const stat *)v.coefficient->data / (stat)rows;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    const real *a = row_of(v.p, r), *b = row_of(v.z, r);
    real *d = (real *)v.dp->data + r * width;
    stat along_z = coefficient * inverse_p[r] * inverse_z[r];
    stat along_p = inverse_p[r] < 1 / smallest_norm ? coefficient * cosine[r] * inverse_p[r] * inverse_p[r] : 0;
#pragma omp simd
    for (int64_t j = 0; j < width; j++) d[j] = store(along_z * load(b[j]) - along_p * load(a[j]));
  }
  return PG_OK;
}
