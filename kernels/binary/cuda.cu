#include "cuda_loop.h"

#include "binary/binary.h"
#include "binary/check.h"

namespace {

/* Operands: y, a, b. The function is the same for the whole grid, so that the switch costs no divergence. */
struct arithmetic {
  int which;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real as[N], bs[N];
    read<N>(as, g, 1, at);
    read<N>(bs, g, 2, at);
#define EACH(EXPRESSION) \
  for (int k = 0; k < N; k++) { \
    stat a = load(as[k]), b = load(bs[k]); \
    as[k] = store(EXPRESSION); \
  } \
  break
    switch (which) {
    case PG_BINARY_ADD: EACH(a + b);
    case PG_BINARY_SUBTRACT: EACH(a - b);
    case PG_BINARY_MULTIPLY: EACH(a * b);
    case PG_BINARY_DIVIDE: EACH(a / b);
    case PG_BINARY_POW: EACH(powf(a, b));
    case PG_BINARY_MAXIMUM: EACH((a > b) | (a != a) ? a : b);
    default: EACH((a < b) | (a != a) ? a : b);
    }
#undef EACH
    write<N>(g, 0, at, as);
  }
};

template <typename T>
static __device__ __forceinline__ uint8_t compared(int which, T a, T b) {
  switch (which) {
  case PG_BINARY_EQUAL: return a == b;
  case PG_BINARY_NOT_EQUAL: return a != b;
  case PG_BINARY_LESS: return a < b;
  case PG_BINARY_LESS_EQUAL: return a <= b;
  case PG_BINARY_GREATER: return a > b;
  default: return a >= b;
  }
}

/* What is compared: an integer, or a real's value. */
template <typename T>
static __device__ __forceinline__ T number(T x) { return x; }
#if PG_REAL != 0
static __device__ __forceinline__ stat number(real x) { return load(x); }
#endif

template <typename T>
struct comparison {
  int which;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T a[N], b[N];
    uint8_t y[N];
    read<N>(a, g, 1, at);
    read<N>(b, g, 2, at);
    for (int k = 0; k < N; k++) y[k] = compared(which, number(a[k]), number(b[k]));
    write<N>(g, 0, at, y);
  }
};

/* ---- integers: float32 instance ---- */

#if PG_REAL == 0
template <typename T>
struct integer_arithmetic {
  int which;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T a[N], b[N];
    read<N>(a, g, 1, at);
    read<N>(b, g, 2, at);
    for (int k = 0; k < N; k++) a[k] = one(a[k], b[k]);
    write<N>(g, 0, at, a);
  }
  __device__ __forceinline__ T one(T a, T b) const {
    switch (which) {
    case PG_BINARY_ADD: return (T)((uint64_t)a + (uint64_t)b);
    case PG_BINARY_SUBTRACT: return (T)((uint64_t)a - (uint64_t)b);
    case PG_BINARY_MULTIPLY: return (T)((uint64_t)a * (uint64_t)b);
    case PG_BINARY_MAXIMUM: return a > b ? a : b;
    case PG_BINARY_MINIMUM: return a < b ? a : b;
    case PG_BINARY_AND: return (T)((a != 0) & (b != 0));
    default: return (T)((a | b) != 0);
    }
  }
};

template <typename T>
static void run_integers(const pg_loop &loop, int which, void *stream) {
  if (which >= PG_BINARY_EQUAL && which <= PG_BINARY_GREATER_EQUAL)
    pg_each<3, 16 / sizeof(T)>(loop, comparison<T>{which}, stream);
  else pg_each<3, 16 / sizeof(T)>(loop, integer_arithmetic<T>{which}, stream);
}
#endif

}  // namespace

pg_status PG_CUDA(binary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_binary(call, &loop);
  if (status) return status;
  int dtype = call->v[1].dtype;
  int which = (int)call->i[0];
  switch (dtype) {
  case PG_REAL:
    if (which >= PG_BINARY_EQUAL) pg_each<3, PG_VECTOR>(loop, comparison<real>{which}, call->stream);
    else pg_each<3, PG_VECTOR>(loop, arithmetic{which}, call->stream);
    break;
#if PG_REAL == 0
  case PG_INT32: run_integers<int32_t>(loop, which, call->stream); break;
  case PG_INT64: run_integers<int64_t>(loop, which, call->stream); break;
  default: run_integers<uint8_t>(loop, which, call->stream);
#endif
  }
  return pg_launched("binary");
}
