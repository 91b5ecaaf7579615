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
  const activation_views v = activation_of(call);
  pg_status status = expect_activation(call);
  if (status) return status;
  const pg_view *const views[2] = {v.y, v.x};
  pg_each<2, PG_VECTOR>(pg_loop_flat(2, views), values{(int)activation_ints_of(call).kind}, call->stream);
  return pg_launched("activation");
}

pg_status PG_CUDA(activation_backward)(const pg_call *call) {
  const activation_backward_views v = activation_backward_of(call);
  pg_status status = expect_activation_backward(call);
  if (status) return status;
  const pg_view *const views[3] = {v.dx, v.dy, v.x};
  pg_each<3, PG_VECTOR>(pg_loop_flat(3, views), derivatives{(int)activation_backward_ints_of(call).kind}, call->stream);
  return pg_launched("activation_backward");
}
