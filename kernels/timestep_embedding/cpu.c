#include "cpu.h"
#include "timestep_embedding/check.h"
#include "timestep_embedding/timestep_embedding.h"

pg_status PG_CPU(timestep_embedding)(const pg_call *call) {
  const timestep_embedding_views v = timestep_embedding_of(call);
  pg_status status = expect_timestep_embedding(call);
  if (status) return status;
  int64_t width = v.y->shape[1], half = width / 2;
  double rate = half ? -log(timestep_embedding_floats_of(call).max_period) / (double)half : 0;
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < v.t->shape[0]; b++) {
    real *row = (real *)v.y->data + b * width;
    double time = (double)((const stat *)v.t->data)[b];
    for (int64_t k = 0; k < half; k++) {
      double angle = time * exp(rate * (double)k);
      row[k] = store((stat)cos(angle));
      row[half + k] = store((stat)sin(angle));
    }
    if (width % 2) row[width - 1] = store(0);
  }
  return PG_OK;
}
