#include "cuda.h"
#include "timestep_embedding/check.h"
#include "timestep_embedding/timestep_embedding.h"

static const int embedding_threads = 128;

/* A frequency of a sample a thread, in float64 as on the CPU: the table is small, and angles are large. */
static __global__ void __launch_bounds__(embedding_threads)
    embed(real *y, const stat *t, int64_t samples, int64_t width, double rate) {
  int64_t half = width / 2, columns = half + width % 2;
  PG_GRID_STRIDE(i, samples * columns) {
    int64_t b = i / columns, k = i - b * columns;
    real *row = y + b * width;
    if (k == half) {
      row[width - 1] = store(0);
      continue;
    }
    double angle = (double)t[b] * exp(rate * (double)k);
    row[k] = store((stat)cos(angle));
    row[half + k] = store((stat)sin(angle));
  }
}

pg_status PG_CUDA(timestep_embedding)(const pg_call *call) {
  const timestep_embedding_views v = timestep_embedding_of(call);
  pg_status status = expect_timestep_embedding(call);
  if (status) return status;
  int64_t samples = v.y->shape[0], width = v.y->shape[1], half = width / 2;
  double rate = half ? -log(timestep_embedding_floats_of(call).max_period) / (double)half : 0;
  LAUNCH(embed, pg_stride_blocks(samples * (half + width % 2), embedding_threads), embedding_threads, 0, call->stream,
         pg_data<real>(v.y), pg_data<stat>(v.t), samples, width, rate);
  return pg_launched("timestep_embedding");
}
