#include "cuda_loop.h"

#include "unary/unary.h"
#include "unary/check.h"

namespace {

template <typename T>
static __device__ __forceinline__ T limited(T x, T low, T high) { return x < low ? low : x > high ? high : x; }

/* Operands: y, x; a and b are the function's constants. */
struct function {
  int which;
  stat a, b;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real xs[N];
    read<N>(xs, g, 1, at);
#define EACH(EXPRESSION) \
  for (int k = 0; k < N; k++) { \
    stat x = load(xs[k]); \
    xs[k] = store(EXPRESSION); \
  } \
  break
    switch (which) {
    case PG_UNARY_NEGATIVE: EACH(-x);
    case PG_UNARY_ABSOLUTE: EACH(fabsf(x));
    case PG_UNARY_EXP: EACH(pg_exp(x));
    case PG_UNARY_LOG: EACH(pg_log(x));
    case PG_UNARY_SQRT: EACH(sqrtf(x));
    case PG_UNARY_RSQRT: EACH(1.0f / sqrtf(x));
    case PG_UNARY_SQUARE: EACH(x * x);
    case PG_UNARY_SIN: EACH(sinf(x));
    case PG_UNARY_COS: EACH(cosf(x));
    case PG_UNARY_TANH: EACH(pg_tanh(x));
    case PG_UNARY_SIGMOID: EACH(pg_sigmoid(x));
    case PG_UNARY_RELU: EACH(x < 0 ? 0.0f : x);
    case PG_UNARY_ERF: EACH(pg_erf(x));
    case PG_UNARY_FLOOR: EACH(floorf(x));
    case PG_UNARY_ROUND: EACH(rintf(x));
    case PG_UNARY_SIGN: EACH(x > 0 ? 1.0f : x < 0 ? -1.0f : x);
    case PG_UNARY_RECIPROCAL: EACH(1.0f / x);
    case PG_UNARY_AFFINE: EACH(a * x + b);
    case PG_UNARY_CLAMP: EACH(limited(x, a, b));
    case PG_UNARY_POW: EACH(powf(x, a));
    default: EACH(atanf(x));
    }
#undef EACH
    write<N>(g, 0, at, xs);
  }
};

/* ---- integers: float32 instance; products and sums in unsigned arithmetic, which wraps around ---- */

#if PG_REAL == 0
template <typename T>
struct integer_function {
  int which;
  int64_t a, b;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T x[N];
    read<N>(x, g, 1, at);
    for (int k = 0; k < N; k++) x[k] = one(x[k]);
    write<N>(g, 0, at, x);
  }
  __device__ __forceinline__ T one(T x) const {
    uint64_t bits = (uint64_t)x;
    bool below = (int64_t)x < 0;
    switch (which) {
    case PG_UNARY_NEGATIVE: return (T)(0 - bits);
    case PG_UNARY_ABSOLUTE: return (T)(below ? 0 - bits : bits);
    case PG_UNARY_SQUARE: return (T)(bits * bits);
    case PG_UNARY_SIGN: return (T)(below ? -1 : x > 0);
    case PG_UNARY_AFFINE: return (T)((uint64_t)a * bits + (uint64_t)b);
    default: return limited(x, (T)a, (T)b);
    }
  }
};

template <typename T>
static void run_integers(const pg_loop &loop, int which, const double *f, void *stream) {
  integer_function<T> body = {which, (int64_t)f[0], (int64_t)f[1]};
  if (which == PG_UNARY_CLAMP) body.a = (int64_t)(T)f[0], body.b = (int64_t)(T)f[1];
  pg_each<2, 16 / sizeof(T)>(loop, body, stream);
}
#endif

}  // namespace

pg_status PG_CUDA(unary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_unary(call, &loop);
  if (status) return status;
  int dtype = call->v[1].dtype;
  int which = (int)call->i[0];
  switch (dtype) {
  case PG_REAL:
    pg_each<2, PG_VECTOR>(loop, function{which, (stat)call->f[0], (stat)call->f[1]}, call->stream);
    break;
#if PG_REAL == 0
  case PG_INT32: run_integers<int32_t>(loop, which, call->f, call->stream); break;
  case PG_INT64: run_integers<int64_t>(loop, which, call->f, call->stream); break;
  default: run_integers<uint8_t>(loop, which, call->f, call->stream);
#endif
  }
  return pg_launched("unary");
}
