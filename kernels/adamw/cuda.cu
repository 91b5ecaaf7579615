#include "cuda_update.h"
#include "adamw/adamw.h"
#include "adamw/check.h"

#if PG_REAL != 0
pg_status PG_CUDA(adamw)(const pg_call *call) {
  (void)call;
  return pg_error(PG_ERROR_UNSUPPORTED, "adamw: on CUDA masters are float32; bfloat16 is for the working copy");
}
#else

struct adamw_step {
  float *parameters, *first, *second, *average;
  bfloat16 *working;
  const float *gradient;

  struct constants {
    float scale, beta1, rest1, beta2, rest2, keep, rate, root, epsilon, ema;
  };

  static __device__ constants constants_of(const pg_hyper &h) {
    double lr = pg_hyper_number(h, 0), beta1 = pg_hyper_number(h, 1), beta2 = pg_hyper_number(h, 2);
    double step = pg_hyper_number(h, 7);
    constants c;
    c.scale = (float)pg_clip_scale(pg_hyper_number(h, 5), h);
    c.beta1 = (float)beta1, c.rest1 = (float)(1 - beta1);
    c.beta2 = (float)beta2, c.rest2 = (float)(1 - beta2);
    c.keep = (float)(1 - lr * pg_hyper_number(h, 4));
    c.rate = (float)(lr / (1 - pow(beta1, step)));
    c.root = (float)(1 / sqrt(1 - pow(beta2, step)));
    c.epsilon = (float)pg_hyper_number(h, 3);
    c.ema = (float)(1 - pg_hyper_number(h, 6));
    return c;
  }

  template <int N>
  __device__ __forceinline__ void step(const constants &c, int64_t j) const {
    float g[N], m[N], v[N], p[N], mean[N] = {};
    load_some<N>(g, gradient + j);
    load_some<N>(m, first + j);
    load_some<N>(v, second + j);
    load_some<N>(p, parameters + j);
    if (average) load_some<N>(mean, average + j);
    for (int k = 0; k < N; k++) {
      float scaled = g[k] * c.scale;
      m[k] = c.beta1 * m[k] + c.rest1 * scaled;
      v[k] = c.beta2 * v[k] + c.rest2 * scaled * scaled;
      p[k] = p[k] * c.keep - c.rate * m[k] / (sqrtf(v[k]) * c.root + c.epsilon);
      mean[k] += c.ema * (p[k] - mean[k]);
    }
    store_some<N>(first + j, m);
    store_some<N>(second + j, v);
    store_some<N>(parameters + j, p);
    if (average) store_some<N>(average + j, mean);
    if (working) pg_store_working<N>(working + j, p);
  }
};

pg_status PG_CUDA(adamw)(const pg_call *call) {
  const adamw_views v = adamw_of(call);
  pg_status status = expect_adamw(call);
  if (status) return status;
  adamw_step s = {pg_data<float>(v.parameters), pg_data<float>(v.first_moment), pg_data<float>(v.second_moment),
                  pg_data<float>(v.average),    pg_data<bfloat16>(v.working),   pg_data<float>(v.gradient)};
  bool vectors = true;
  const void *const all[] = {s.parameters, s.first, s.second, s.average, s.working, s.gradient};
  for (const void *data : all) vectors = vectors && pg_vectorisable(data, 0, 0);
  pg_update(s, v.hyper, v.square_sum, pg_numel(v.parameters), vectors, call->stream);
  return pg_launched("adamw");
}
#endif
