#include "cpu.h"
#include "timestep_embedding/timestep_embedding.h"

pg_status PG_CPU(timestep_embedding)(const pg_call *call) {
  const pg_view *y = &call->v[0], *t = &call->v[1];
  PG_EXPECT(t->ndim == 1 && y->ndim == 2 && y->shape[0] == t->shape[0],
            "timestep_embedding: t is %s, y is %s; expected [B] and [B,width]", pg_shape_text(t), pg_shape_text(y));
  PG_EXPECT(call->f[0] > 0, "timestep_embedding: max_period %g; it must be positive", call->f[0]);
  int64_t width = y->shape[1], half = width / 2;
  double rate = half ? -log(call->f[0]) / (double)half : 0;
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < t->shape[0]; b++) {
    real *row = (real *)y->data + b * width;
    double time = (double)((const stat *)t->data)[b];
    for (int64_t k = 0; k < half; k++) {
      double angle = time * exp(rate * (double)k);
      row[k] = store((stat)cos(angle));
      row[half + k] = store((stat)sin(angle));
    }
    if (width % 2) row[width - 1] = store(0);
  }
  return PG_OK;
}
