#include "cuda_loop.h"

#include "interpolant/check.h"
#include "interpolant/interpolant.h"

struct coefficients {
  stat alpha, sigma, alpha_rate, sigma_rate;
};

static __device__ __forceinline__ coefficients at_time(int64_t path, stat t) {
  if (path == 0) return {1 - t, t, -1, 1};
  const double quarter = 1.57079632679489661923; /* π/2 */
  double c = cos(quarter * (double)t), s = sin(quarter * (double)t);
  return {(stat)c, (stat)s, (stat)(-quarter * s), (stat)(quarter * c)};
}

/* Grid: `pieces` blocks a sample of n elements; a thread takes N at a time. */
template <int N>
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    interpolate(real *x_t, real *velocity, const real *x0, const real *noise, const stat *t, int64_t n, int64_t pieces,
                int64_t path) {
  PG_SHARED(coefficients, c, [1]);
  int64_t sample = blockIdx.x / pieces, piece = blockIdx.x - sample * pieces;
  if (threadIdx.x == 0) c[0] = at_time(path, t[sample]);
  __syncthreads();
  coefficients by = c[0];
  for (int64_t j = (piece * PG_EACH_THREADS + threadIdx.x) * N; j < n; j += pieces * PG_EACH_THREADS * N) {
    stat data[N], eps[N], rate[N];
    load_some<N>(data, x0 + sample * n + j);
    load_some<N>(eps, noise + sample * n + j);
    for (int k = 0; k < N; k++) {
      rate[k] = by.alpha_rate * data[k] + by.sigma_rate * eps[k];
      data[k] = by.alpha * data[k] + by.sigma * eps[k];
    }
    store_some<N>(x_t + sample * n + j, data);
    store_some<N>(velocity + sample * n + j, rate);
  }
}

pg_status PG_CUDA(interpolant)(const pg_call *call) {
  const interpolant_views v = interpolant_of(call);
  pg_status status = expect_interpolant(call);
  if (status) return status;
  int64_t samples = v.x0->shape[0], n = samples ? pg_numel(v.x0) / samples : 0;
  bool vectors = true;
  const pg_view *const whole[] = {v.x_t, v.velocity, v.x0, v.noise};
  for (const pg_view *view : whole) vectors = vectors && pg_vectorisable(view->data, n, n);
  int64_t most = 16 * 132 * 4 / (samples ? samples : 1) + 1; /* enough blocks to fill an H100 */
  int64_t pieces = pg_pieces(n, PG_EACH_THREADS * (vectors ? PG_VECTOR : 1));
  if (pieces > most) pieces = most;
  auto kernel = vectors ? interpolate<PG_VECTOR> : interpolate<1>;
  LAUNCH(kernel, (unsigned)(samples * pieces), PG_EACH_THREADS, 0, call->stream, pg_data<real>(v.x_t),
         pg_data<real>(v.velocity), pg_data<real>(v.x0), pg_data<real>(v.noise), pg_data<stat>(v.t), n, pieces,
         interpolant_ints_of(call).path);
  return pg_launched("interpolant");
}
