#include "cpu_update.h"
#include "adamw/adamw.h"
#include "adamw/check.h"

#if PG_REAL == 2
pg_status PG_CPU(adamw)(const pg_call *call) {
  (void)call;
  return pg_error(PG_ERROR_UNSUPPORTED, "adamw: masters are float32 or float64; bfloat16 is for the working copy");
}
#else

typedef struct step_constants {
  stat scale, beta1, rest1, beta2, rest2, keep, rate, root, epsilon, ema;
} step_constants;

/* The factors that are the same for all elements, in float64. */
static step_constants constants_of(const pg_view *hyper, const pg_view *square_sum) {
  const double lr = pg_hyper_number(hyper, 0), beta1 = pg_hyper_number(hyper, 1), beta2 = pg_hyper_number(hyper, 2),
               step = pg_hyper_number(hyper, 7);
  return (step_constants){
      .scale = (stat)pg_clip_scale(pg_hyper_number(hyper, 5), square_sum),
      .beta1 = (stat)beta1,
      .rest1 = (stat)(1 - beta1),
      .beta2 = (stat)beta2,
      .rest2 = (stat)(1 - beta2),
      .keep = (stat)(1 - lr * pg_hyper_number(hyper, 4)),
      .rate = (stat)(lr / (1 - pow(beta1, step))),
      .root = (stat)(1 / sqrt(1 - pow(beta2, step))),
      .epsilon = (stat)pg_hyper_number(hyper, 3),
      .ema = (stat)(1 - pg_hyper_number(hyper, 6)),
  };
}

static void step_chunk(int64_t n, real *restrict p, real *restrict m, real *restrict v, const real *restrict g,
                       step_constants c) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    const stat gradient = g[k] * c.scale;
    const stat first = c.beta1 * m[k] + c.rest1 * gradient;
    const stat second = c.beta2 * v[k] + c.rest2 * gradient * gradient;
    m[k] = first;
    v[k] = second;
#if PG_REAL == 1
    const stat root = sqrt(second) * c.root;
#else
    const stat root = sqrtf(second) * c.root;
#endif
    p[k] = p[k] * c.keep - c.rate * first / (root + c.epsilon);
  }
}

pg_status PG_CPU(adamw)(const pg_call *call) {
  const adamw_views v = adamw_of(call);
  pg_status status = expect_adamw(call);
  if (status) return status;
  real *p = v.parameters->data, *first = v.first_moment->data, *second = v.second_moment->data;
  real *average = v.average->data;
  uint16_t *working = v.working->data;
  const real *g = v.gradient->data;
  const step_constants c = constants_of(v.hyper, v.square_sum);
  const int64_t n = pg_numel(v.parameters), chunks = pg_pieces(n, PG_UPDATE_CHUNK);
#pragma omp parallel for schedule(static) if (chunks > 4)
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    const int64_t at = chunk * PG_UPDATE_CHUNK, count = n - at < PG_UPDATE_CHUNK ? n - at : PG_UPDATE_CHUNK;
    step_chunk(count, p + at, first + at, second + at, g + at, c);
    pg_follow_chunk(count, p + at, average ? average + at : NULL, working ? working + at : NULL, c.ema);
  }
  return PG_OK;
}
#endif
