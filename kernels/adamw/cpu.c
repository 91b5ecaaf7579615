#include "cpu.h"
#include "adamw/adamw.h"
#include "adamw/check.h"

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

#if PG_REAL == 2
pg_status PG_CPU(adamw)(const pg_call *call) {
  (void)call;
  return pg_error(PG_ERROR_UNSUPPORTED, "adamw: masters are float32 or float64; bfloat16 is for the working copy");
}
#else

typedef struct step_constants {
  stat scale, beta1, rest1, beta2, rest2, keep, rate, root, epsilon, ema;
} step_constants;

static double number(const pg_view *v, int k) {
  return v->dtype == PG_FLOAT64 ? ((const double *)v->data)[k] : (double)((const float *)v->data)[k];
}

/* What does not depend on the element, in float64. */
static step_constants constants_of(const pg_view *hyper, double square_sum) {
  const double lr = number(hyper, 0), beta1 = number(hyper, 1), beta2 = number(hyper, 2), clip = number(hyper, 5),
               step = number(hyper, 7), factor = clip / (sqrt(square_sum) + 1e-6);
  return (step_constants){
      .scale = (stat)(clip > 0 && factor < 1 ? factor : 1),
      .beta1 = (stat)beta1,
      .rest1 = (stat)(1 - beta1),
      .beta2 = (stat)beta2,
      .rest2 = (stat)(1 - beta2),
      .keep = (stat)(1 - lr * number(hyper, 4)),
      .rate = (stat)(lr / (1 - pow(beta1, step))),
      .root = (stat)(1 / sqrt(1 - pow(beta2, step))),
      .epsilon = (stat)number(hyper, 3),
      .ema = (stat)(1 - number(hyper, 6)),
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

static void average_chunk(int64_t n, real *restrict average, const real *restrict p, stat ema) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) average[k] += ema * (p[k] - average[k]);
}

pg_status PG_CPU(adamw)(const pg_call *call) {
  const adamw_views v = adamw_of(call);
  const int64_t n = pg_numel(v.parameters);
  pg_status status = expect_adamw(call);
  if (status) return status;
  real *p = v.parameters->data, *first = v.first_moment->data, *second = v.second_moment->data;
  real *average = v.average->data;
  uint16_t *working = v.working->data;
  const real *g = v.gradient->data;
  const step_constants c = constants_of(v.hyper, (double)*(const stat *)v.square_sum->data);
  const int64_t chunks = pg_pieces(n, CHUNK);
#pragma omp parallel for schedule(static) if (chunks > 4)
  for (int64_t chunk = 0; chunk < chunks; chunk++) {
    const int64_t at = chunk * CHUNK, count = n - at < CHUNK ? n - at : CHUNK;
    step_chunk(count, p + at, first + at, second + at, g + at, c);
    if (average) average_chunk(count, average + at, p + at, c.ema);
    for (int64_t k = at; working && k < at + count; k++) working[k] = pg_to_bfloat16((float)p[k]);
  }
  return PG_OK;
}
#endif
