#include "cuda_loop.h"

#include "binary/binary.h"
#include "binary/check.h"
#include "binary/functions.h"

namespace {

/* Operands: y, a, b. The function is the same for the whole grid, so that the switch costs no divergence. */
struct arithmetic {
  int which;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real as[N], bs[N];
    read<N>(as, g, 1, at);
    read<N>(bs, g, 2, at);
    switch (which) {
#define CASE(NAME, EXPRESSION) \
  case PG_BINARY_##NAME: \
    for (int k = 0; k < N; k++) { \
      stat a = load(as[k]), b = load(bs[k]); \
      as[k] = store(EXPRESSION); \
    } \
    break;
      PG_BINARY_ARITHMETIC(CASE)
#undef CASE
    }
    write<N>(g, 0, at, as);
  }
};

template <typename T>
static __device__ __forceinline__ uint8_t compared(int which, T a, T b) {
  switch (which) {
#define CASE(NAME, EXPRESSION) \
  case PG_BINARY_##NAME: return EXPRESSION;
    PG_BINARY_COMPARISONS(CASE)
#undef CASE
  default: return 0;
  }
}

/* The compared value: an integer, or a real's value. */
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
#define CASE(NAME, EXPRESSION) \
  case PG_BINARY_##NAME: return (T)(EXPRESSION);
      PG_BINARY_INTEGERS(CASE)
      PG_BINARY_LOGICAL(CASE)
#undef CASE
    default: return 0;
    }
  }
};

template <typename T>
static void run_integers(const pg_loop &loop, int which, void *stream) {
  if (which >= PG_BINARY_equal && which <= PG_BINARY_greater_equal)
    pg_each<3, 16 / sizeof(T)>(loop, comparison<T>{which}, stream);
  else pg_each<3, 16 / sizeof(T)>(loop, integer_arithmetic<T>{which}, stream);
}
#endif

}  // namespace

pg_status PG_CUDA(binary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_binary(call, &loop);
  if (status) return status;
  int dtype = binary_of(call).a->dtype;
  int which = (int)binary_ints_of(call).operation;
  switch (dtype) {
  case PG_REAL:
    if (which >= PG_BINARY_equal) pg_each<3, PG_VECTOR>(loop, comparison<real>{which}, call->stream);
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
