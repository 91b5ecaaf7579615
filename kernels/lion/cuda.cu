#include "cuda_update.h"
#include "lion/check.h"
#include "lion/lion.h"

#if PG_REAL != 0
pg_status PG_CUDA(lion)(const pg_call *call) {
  (void)call;
  return pg_error(PG_ERROR_UNSUPPORTED, "lion: on CUDA masters are float32; bfloat16 is for the working copy");
}
#else

struct lion_step {
  float *parameters, *moment, *average;
  bfloat16 *working;
  const float *gradient;

  struct constants {
    float scale, beta1, rest1, beta2, rest2, keep, rate, ema;
  };

  static __device__ constants constants_of(const pg_hyper &h) {
    double lr = pg_hyper_number(h, 0), beta1 = pg_hyper_number(h, 1), beta2 = pg_hyper_number(h, 2);
    constants c;
    c.scale = (float)pg_clip_scale(pg_hyper_number(h, 4), h);
    c.beta1 = (float)beta1, c.rest1 = (float)(1 - beta1);
    c.beta2 = (float)beta2, c.rest2 = (float)(1 - beta2);
    c.keep = (float)(1 - lr * pg_hyper_number(h, 3));
    c.rate = (float)lr;
    c.ema = (float)(1 - pg_hyper_number(h, 5));
    return c;
  }

  template <int N>
  __device__ __forceinline__ void step(const constants &c, int64_t j) const {
    float g[N], m[N], p[N], mean[N] = {};
    load_some<N>(g, gradient + j);
    load_some<N>(m, moment + j);
    load_some<N>(p, parameters + j);
    if (average) load_some<N>(mean, average + j);
    for (int k = 0; k < N; k++) {
      float scaled = g[k] * c.scale, way = c.beta1 * m[k] + c.rest1 * scaled;
      m[k] = c.beta2 * m[k] + c.rest2 * scaled;
      float sign = way > 0 ? 1 : way < 0 ? -1 : way; /* NaN stays NaN */
      p[k] = p[k] * c.keep - c.rate * sign;
      mean[k] += c.ema * (p[k] - mean[k]);
    }
    store_some<N>(moment + j, m);
    store_some<N>(parameters + j, p);
    if (average) store_some<N>(average + j, mean);
    if (working) pg_store_working<N>(working + j, p);
  }
};

pg_status PG_CUDA(lion)(const pg_call *call) {
  const lion_views v = lion_of(call);
  pg_status status = expect_lion(call);
  if (status) return status;
  lion_step s = {pg_data<float>(v.parameters), pg_data<float>(v.moment), pg_data<float>(v.average),
                 pg_data<bfloat16>(v.working), pg_data<float>(v.gradient)};
  bool vectors = true;
  const void *const all[] = {s.parameters, s.moment, s.average, s.working, s.gradient};
  for (const void *data : all) vectors = vectors && pg_vectorisable(data, 0, 0);
  pg_update(s, v.hyper, v.square_sum, pg_numel(v.parameters), vectors, call->stream);
  return pg_launched("lion");
}
#endif
