#include "cuda.h"
#include "square_sum/check.h"
#include "square_sum/square_sum.h"

static const int threads = 256;
static const int64_t chunk = 16384; /* elements that a block adds up */

int64_t PG_CUDA(square_sum_scratch)(const pg_call *call) {
  const square_sum_views v = square_sum_of(call);
  return pg_pieces(pg_numel(v.x), chunk) * (int64_t)sizeof(double);
}

/* Grid: a block a chunk. N elements at a time, those after the last whole N of x one by one. */
template <int N>
static __global__ void __launch_bounds__(threads) add_squares(double *partial, const real *x, int64_t n) {
  int64_t from = blockIdx.x * chunk, to = min(from + chunk, n), whole = to / N * N;
  stat v[N];
  double sum = 0;
#pragma unroll 4
  for (int64_t j = from + threadIdx.x * N; j < whole; j += threads * N) {
    load_some<N>(v, x + j);
    for (int k = 0; k < N; k++) sum += (double)v[k] * (double)v[k];
  }
  if (whole + threadIdx.x < to) {
    double last = (double)load(x[whole + threadIdx.x]);
    sum += last * last;
  }
  sum = block_sum<threads / PG_WARP>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

pg_status PG_CUDA(square_sum)(const pg_call *call) {
  const square_sum_views v = square_sum_of(call);
  pg_status status = expect_square_sum(call);
  if (status) return status;
  const real *x = pg_data<real>(v.x);
  int64_t n = pg_numel(v.x);
  auto kernel = pg_vectorisable(x, 0, 0) ? add_squares<PG_VECTOR> : add_squares<1>;
  double *partial = static_cast<double *>(call->scratch);
  LAUNCH(kernel, pg_blocks(n, chunk), threads, 0, call->stream, partial, x, n);
  pg_add_partial_sums(pg_data<stat>(v.sum), partial, pg_pieces(n, chunk), 1.0, call->stream);
  return pg_launched("square_sum");
}
