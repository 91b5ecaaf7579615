#include "cuda_loop.h"

#include "unary/half.h"
#include "unary/unary.h"
#include "unary/check.h"

namespace {

/* Operands: y, x; a and b are the function's constants. */
struct function {
  int which;
  stat a, b;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real xs[N];
    read<N>(xs, g, 1, at);
    switch (which) {
#define CASE(NAME, EXPRESSION) \
  case PG_UNARY_##NAME: \
    for (int k = 0; k < N; k++) { \
      stat x = load(xs[k]); \
      xs[k] = store(EXPRESSION); \
    } \
    break;
      PG_UNARY(CASE)
#undef CASE
    }
    write<N>(g, 0, at, xs);
  }
};

/* ---- integers: float32 instance ---- */

#if PG_REAL == 0
template <typename T>
struct integer_function {
  int which;
  T a, b;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T x[N];
    read<N>(x, g, 1, at);
    for (int k = 0; k < N; k++) x[k] = one(x[k]);
    write<N>(g, 0, at, x);
  }
  __device__ __forceinline__ T one(T x) const {
    switch (which) {
#define CASE(NAME, EXPRESSION) \
  case PG_UNARY_##NAME: return (T)(EXPRESSION);
      PG_UNARY_INTEGERS(CASE)
#undef CASE
    default: return x;
    }
  }
};

template <typename T>
static void run_integers(const pg_loop &loop, int which, const unary_floats &f, void *stream) {
  pg_each<2, 16 / sizeof(T)>(loop, integer_function<T>{which, (T)(int64_t)f.a, (T)(int64_t)f.b}, stream);
}
#endif

}  // namespace

pg_status PG_CUDA(unary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_unary(call, &loop);
  if (status) return status;
  const unary_floats f = unary_floats_of(call);
  int dtype = unary_of(call).x->dtype;
  int which = (int)unary_ints_of(call).operation;
  switch (dtype) {
  case PG_REAL:
    pg_each<2, PG_VECTOR>(loop, function{which, (stat)f.a, (stat)f.b}, call->stream);
    break;
#if PG_REAL == 0
  case PG_INT32: run_integers<int32_t>(loop, which, f, call->stream); break;
  case PG_INT64: run_integers<int64_t>(loop, which, f, call->stream); break;
  default: run_integers<uint8_t>(loop, which, f, call->stream);
#endif
  }
  return pg_launched("unary");
}
