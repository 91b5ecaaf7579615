#include "cpu_update.h"
#include "lion/check.h"
#include "lion/lion.h"

#if PG_REAL == 2
pg_status PG_CPU(lion)(const pg_call *call) {
  (void)call;
  return pg_error(PG_ERROR_UNSUPPORTED, "lion: masters are float32 or float64; bfloat16 is for the working copy");
}
#else

typedef struct step_constants {
  stat scale, beta1, rest1, beta2, rest2, keep, rate, ema;
} step_constants;

/* The factors that are the same for all elements, in float64. */
static step_constants constants_of(const pg_view *hyper, const pg_view *square_sum) {
  const double lr = pg_hyper_number(hyper, 0), beta1 = pg_hyper_number(hyper, 1), beta2 = pg_hyper_number(hyper, 2);
  return (step_constants){
      .scale = (stat)pg_clip_scale(pg_hyper_number(hyper, 4), square_sum),
      .beta1 = (stat)beta1,
      .rest1 = (stat)(1 - beta1),
      .beta2 = (stat)beta2,
      .rest2 = (stat)(1 - beta2),
      .keep = (stat)(1 - lr * pg_hyper_number(hyper, 3)),
      .rate = (stat)lr,
      .ema = (stat)(1 - pg_hyper_number(hyper, 5)),
  };
}

static void step_chunk(int64_t n, real *restrict p, real *restrict m, const real *restrict g, step_constants c) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    const stat gradient = g[k] * c.scale;
    const stat way = c.beta1 * m[k] + c.rest1 * gradient;
    m[k] = c.beta2 * m[k] + c.rest2 * gradient;
    const stat sign = way > 0 ? 1 : way < 0 ? -1 : way; /* NaN stays NaN */
    p[k] = p[k] * c.keep - c.rate * sign;
  }
}

pg_status PG_CPU(lion)(const pg_call *call) {
  const lion_views v = lion_of(call);
  pg_status status = expect_lion(call);
  if (status) return status;
  real *p = v.parameters->data, *m = v.moment->data, *average = v.average->data;
  uint16_t *working = v.working->data;
  const real *g = v.gradient->data;
  const step_constants c = constants_of(v.hyper, v.square_sum);
  const int64_t n = pg_numel(v.parameters), chunks = pg_pieces(n, PG_UPDATE_CHUNK);
#pragma omp parallel for schedule(static) if (chunks > 4)
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    const int64_t at = chunk * PG_UPDATE_CHUNK, count = n - at < PG_UPDATE_CHUNK ? n - at : PG_UPDATE_CHUNK;
    step_chunk(count, p + at, m + at, g + at, c);
    pg_follow_chunk(count, p + at, average ? average + at : NULL, working ? working + at : NULL, c.ema);
  }
  return PG_OK;
}
#endif
