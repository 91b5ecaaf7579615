#include "cuda.h"
#include "cumsum/check.h"
#include "cumsum/cumsum.h"

/* What sums are made in: double, or int64's bits for integers. */
static __device__ __forceinline__ double summand(real x) { return load(x); }
static __device__ __forceinline__ real result(double sum, const real *) { return store((stat)sum); }
#if PG_REAL == 0
static __device__ __forceinline__ uint64_t summand(int32_t x) { return (uint64_t)(int64_t)x; }
static __device__ __forceinline__ uint64_t summand(int64_t x) { return (uint64_t)x; }
static __device__ __forceinline__ uint64_t summand(uint8_t x) { return x; }
static __device__ __forceinline__ int64_t result(uint64_t sum, const int64_t *) { return (int64_t)sum; }
#endif

/* Grid: a warp a row, 32 elements at a time. */
template <class Sum, class Out, class In>
static __global__ void __launch_bounds__(PG_ROW_BLOCK)
    add_rows(Out *y, const In *x, int64_t rows, int64_t n, int reverse) {
  int64_t row = row_of_thread<PG_WARP>();
  int lane = place_in_row<PG_WARP>();
  if (row >= rows) return;
  Sum before = 0;
  for (int64_t start = 0; start < n; start += PG_WARP) {
    int64_t k = start + lane, at = row * n + (reverse ? n - 1 - k : k);
    Sum sum = k < n ? summand(x[at]) : (Sum)0;
    for (int offset = 1; offset < PG_WARP; offset *= 2) {
      Sum left = __shfl_up_sync(PG_ALL_LANES, sum, offset);
      if (lane >= offset) sum += left;
    }
    sum += before;
    if (k < n) y[at] = result(sum, y);
    before = __shfl_sync(PG_ALL_LANES, sum, PG_WARP - 1);
  }
}

template <class Sum, class Out, class In>
static void add_all(const pg_call *call, int64_t rows, int64_t n) {
  const cumsum_views v = cumsum_of(call);
  LAUNCH((add_rows<Sum, Out, In>), pg_blocks(rows, PG_ROW_BLOCK / PG_WARP), PG_ROW_BLOCK, 0, call->stream,
         pg_data<Out>(v.y), pg_data<In>(v.x), rows, n, (int)cumsum_ints_of(call).reverse);
}

pg_status PG_CUDA(cumsum)(const pg_call *call) {
  int64_t rows = 0, n = 0;
  pg_status status = expect_cumsum(call, &rows, &n);
  if (status) return status;
  switch (cumsum_of(call).x->dtype) {
  case PG_REAL: add_all<double, real, real>(call, rows, n); break;
#if PG_REAL == 0
  case PG_INT32: add_all<uint64_t, int64_t, int32_t>(call, rows, n); break;
  case PG_INT64: add_all<uint64_t, int64_t, int64_t>(call, rows, n); break;
  default: add_all<uint64_t, int64_t, uint8_t>(call, rows, n);
#endif
  }
  return pg_launched("cumsum");
}
