#include "cuda_loop.h"

#include "activation/activation.h"
#include "activation/check.h"
#include "activation/functions.h"

namespace {

/* Operands: y, x. */
struct values {
  int kind;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real x[N];
    read<N>(x, g, 1, at);
    switch (kind) {
#define CASE(function) \
  case ACTIVATION_##function: \
    for (int k = 0; k < N; k++) x[k] = store(function(load(x[k]))); \
    break;
      PG_ACTIVATIONS(CASE)
#undef CASE
    }
    write<N>(g, 0, at, x);
  }
};

/* Operands: dx, dy, x. */
struct derivatives {
  int kind;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real d[N], x[N];
    read<N>(d, g, 1, at);
    read<N>(x, g, 2, at);
    switch (kind) {
#define CASE(function) \
  case ACTIVATION_##function: \
    for (int k = 0; k < N; k++) d[k] = store(load(d[k]) * function##_derivative(load(x[k]))); \
    break;
      PG_ACTIVATIONS(CASE)
#undef CASE
    }
    write<N>(g, 0, at, d);
  }
};

}  // namespace

pg_status PG_CUDA(activation)(const pg_call *call) {
  pg_status status = expect_activation("activation", call, 2);
  if (status) return status;
  const pg_view *const views[2] = {&call->v[0], &call->v[1]};
  pg_each<2, PG_VECTOR>(pg_loop_flat(2, views), values{(int)call->i[0]}, call->stream);
  return pg_launched("activation");
}

pg_status PG_CUDA(activation_backward)(const pg_call *call) {
  pg_status status = expect_activation("activation_backward", call, 3);
  if (status) return status;
  const pg_view *const views[3] = {&call->v[0], &call->v[1], &call->v[2]};
  pg_each<3, PG_VECTOR>(pg_loop_flat(3, views), derivatives{(int)call->i[0]}, call->stream);
  return pg_launched("activation_backward");
}
