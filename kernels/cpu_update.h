/* Shared by the CPU kernels of optimisers. Parameters and moments are float32 or float64; a step goes chunk by chunk,
 * so that what it wrote is still in cache when the average and the working copy are made of it. */
#ifndef PERIGEE_KERNELS_CPU_UPDATE_H
#define PERIGEE_KERNELS_CPU_UPDATE_H

#include "cpu.h"

enum { PG_UPDATE_CHUNK = 4096 };

/* Number k of the step's settings. */
static inline double pg_hyper_number(const pg_view *hyper, int k) {
  return hyper->dtype == PG_FLOAT64 ? ((const double *)hyper->data)[k] : (double)((const float *)hyper->data)[k];
}

/* The factor of all gradients so that their norm is at most `clip`; 0: no clipping. */
static inline double pg_clip_scale(double clip, const pg_view *square_sum) {
  const double factor = clip / (sqrt((double)*(const stat *)square_sum->data) + 1e-6);
  return clip > 0 && factor < 1 ? factor : 1;
}

/* The average and the working copy, where there are such, of n parameters. `rest` is 1 − ema. */
static inline void pg_follow_chunk(int64_t n, const real *restrict p, real *restrict average, uint16_t *working,
                                   stat rest) {
  if (average) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) average[k] += rest * (p[k] - average[k]);
  }
  if (working) {
    for (int64_t k = 0; k < n; k++) working[k] = pg_to_bfloat16((float)p[k]);
  }
}

#endif
