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
  const interpolant_views v = interpolant_of(call);
  pg_status status = expect_interpolant(call);
  if (status) return status;
  int64_t samples = v.x0->shape[0], n = samples ? pg_numel(v.x0) / samples : 0, pieces = pg_pieces(n, PIECE);
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t sample = k / pieces, from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE;
    coefficients c = at_time(interpolant_ints_of(call).path, ((const stat *)v.t->data)[sample]);
    const real *x = (const real *)v.x0->data + sample * n + from, *e = (const real *)v.noise->data + sample * n + from;
    real *x_t = (real *)v.x_t->data + sample * n + from, *velocity = (real *)v.velocity->data + sample * n + from;
#pragma omp simd
    for (int64_t j = 0; j < length; j++) {
      stat data = load(x[j]), eps = load(e[j]);
      x_t[j] = store(c.alpha * data + c.sigma * eps);
      velocity[j] = store(c.alpha_rate * data + c.sigma_rate * eps);
    }
  }
  return PG_OK;
}
