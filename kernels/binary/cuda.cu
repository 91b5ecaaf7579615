#include "cuda_loop.h"

#include "binary/binary.h"

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

struct comparison {
  int which;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real a[N], b[N];
    uint8_t y[N];
    read<N>(a, g, 1, at);
    read<N>(b, g, 2, at);
    for (int k = 0; k < N; k++) y[k] = compared(which, load(a[k]), load(b[k]));
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
struct integer_comparison {
  int which;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T a[N], b[N];
    uint8_t y[N];
    read<N>(a, g, 1, at);
    read<N>(b, g, 2, at);
    for (int k = 0; k < N; k++) y[k] = compared(which, a[k], b[k]);
    write<N>(g, 0, at, y);
  }
};

template <typename T>
static void run_integers(const pg_loop &loop, int which, void *stream) {
  if (which >= PG_BINARY_EQUAL && which <= PG_BINARY_GREATER_EQUAL)
    pg_each<3, 16 / sizeof(T)>(loop, integer_comparison<T>{which}, stream);
  else pg_each<3, 16 / sizeof(T)>(loop, integer_arithmetic<T>{which}, stream);
}
#endif

}  // namespace

static bool exists(int dtype, int64_t which) {
  if (dtype == PG_REAL) return which < PG_BINARY_AND;
  if (PG_REAL != 0 || dtype < PG_INT32 || which == PG_BINARY_DIVIDE || which == PG_BINARY_POW) return false;
  return which < PG_BINARY_AND || dtype == PG_UINT8;
}

pg_status PG_CUDA(binary)(const pg_call *call) {
  const pg_view *y = &call->v[0], *a = &call->v[1], *b = &call->v[2];
  int which = (int)call->i[0];
  PG_EXPECT(call->i[0] >= 0 && call->i[0] < PG_BINARY_FUNCTIONS, "binary: there is no function number %lld",
            (long long)call->i[0]);
  PG_EXPECT(a->dtype == b->dtype, "binary: a has dtype %d, b has %d; they must be the same", a->dtype, b->dtype);
  bool truth = which >= PG_BINARY_EQUAL;
  PG_EXPECT(y->dtype == (truth ? (int)PG_UINT8 : a->dtype), "binary: y has dtype %d, expected %d", y->dtype,
            truth ? (int)PG_UINT8 : a->dtype);
  PG_EXPECT(pg_contiguous(y), "binary: y must be contiguous");
  PG_EXPECT(exists(a->dtype, which), "binary: function %d has no version for dtype %d in this instance", which, a->dtype);
  const pg_view *const views[3] = {y, a, b};
  pg_loop loop;
  PG_EXPECT(pg_loop_make(&loop, 3, views), "binary: %s and %s do not broadcast to %s", pg_shape_text(a),
            pg_shape_text(b), pg_shape_text(y));
  switch (a->dtype) {
  case PG_REAL:
    if (truth) pg_each<3, PG_VECTOR>(loop, comparison{which}, call->stream);
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
