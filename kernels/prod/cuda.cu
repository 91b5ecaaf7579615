#include "cuda.h"
#include "prod/check.h"
#include "prod/prod.h"

/* What products are made in: double, or int64's bits for integers. */
static __device__ __forceinline__ double factor(real x) { return load(x); }
static __device__ __forceinline__ void put(real *y, double product) { *y = store((stat)product); }
#if PG_REAL == 0
static __device__ __forceinline__ uint64_t factor(int32_t x) { return (uint64_t)(int64_t)x; }
static __device__ __forceinline__ uint64_t factor(int64_t x) { return (uint64_t)x; }
static __device__ __forceinline__ uint64_t factor(uint8_t x) { return x; }
static __device__ __forceinline__ void put(int64_t *y, uint64_t product) { *y = (int64_t)product; }
#endif

/* Grid: a warp a row. */
template <class Product, class Out, class In>
static __global__ void __launch_bounds__(PG_ROW_BLOCK) multiply_rows(Out *y, const In *x, int64_t rows, int64_t n) {
  int64_t row = row_of_thread<PG_WARP>();
  int lane = place_in_row<PG_WARP>();
  if (row >= rows) return;
  Product product = 1;
  for (int64_t j = lane; j < n; j += PG_WARP) product *= factor(x[row * n + j]);
  for (int offset = PG_WARP / 2; offset; offset /= 2) product *= __shfl_xor_sync(PG_ALL_LANES, product, offset);
  if (lane == 0) put(y + row, product);
}

template <class Product, class Out, class In>
static void multiply_all(const pg_call *call) {
  const prod_views v = prod_of(call);
  int64_t rows = v.x->shape[0];
  LAUNCH((multiply_rows<Product, Out, In>), pg_blocks(rows, PG_ROW_BLOCK / PG_WARP), PG_ROW_BLOCK, 0, call->stream,
         pg_data<Out>(v.y), pg_data<In>(v.x), rows, v.x->shape[1]);
}

pg_status PG_CUDA(prod)(const pg_call *call) {
  pg_status status = expect_prod(call);
  if (status) return status;
  switch (prod_of(call).x->dtype) {
  case PG_REAL: multiply_all<double, real, real>(call); break;
#if PG_REAL == 0
  case PG_INT32: multiply_all<uint64_t, int64_t, int32_t>(call); break;
  case PG_INT64: multiply_all<uint64_t, int64_t, int64_t>(call); break;
  default: multiply_all<uint64_t, int64_t, uint8_t>(call);
#endif
  }
  return pg_launched("prod");
}
