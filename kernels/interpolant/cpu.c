#include "cpu.h"
#include "interpolant/check.h"
#include "interpolant/interpolant.h"

enum { PIECE = 4096 };

typedef struct coefficients {
  stat alpha, sigma, alpha_rate, sigma_rate;
} coefficients;

static coefficients at_time(int64_t path, stat t) {
  if (path == 0) return (coefficients){1 - t, t, -1, 1};
  const double quarter = 1.57079632679489661923; /* π/2 */
  double c = cos(quarter * (double)t), s = sin(quarter * (double)t);
  return (coefficients){(stat)c, (stat)s, (stat)(-quarter * s), (stat)(quarter * c)};
}

pg_status PG_CPU(interpolant)(const pg_call *call) {
  pg_status status = expect_interpolant(call);
  if (status) return status;
  const pg_view *x0 = &call->v[2], *noise = &call->v[3], *t = &call->v[4];
  int64_t samples = x0->shape[0], n = samples ? pg_numel(x0) / samples : 0, pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t sample = k / pieces, from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE;
    coefficients c = at_time(call->i[0], ((const stat *)t->data)[sample]);
    const real *x = (const real *)x0->data + sample * n + from, *e = (const real *)noise->data + sample * n + from;
    real *x_t = (real *)call->v[0].data + sample * n + from, *velocity = (real *)call->v[1].data + sample * n + from;
#pragma omp simd
    for (int64_t j = 0; j < length; j++) {
      stat data = load(x[j]), eps = load(e[j]);
      x_t[j] = store(c.alpha * data + c.sigma * eps);
      velocity[j] = store(c.alpha_rate * data + c.sigma_rate * eps);
    }
  }
  return PG_OK;
}
