#include "cuda.h"
#include "mse/check.h"
#include "mse/mse.h"

static const int threads = 256;
static const int64_t piece = 2048; /* elements of a sample that a block adds up */

struct samples {
  int64_t count, n, pieces; /* of n elements each, in so many pieces */
};

static samples cut(const pg_view *a) {
  int64_t count = samples_of(a), n = count ? pg_numel(a) / count : 0;
  return {count, n, pg_pieces(n, piece)};
}

int64_t PG_CUDA(mse_scratch)(const pg_call *call) {
  const mse_views v = mse_of(call);
  samples s = cut(v.a);
  return s.count * s.pieces * (int64_t)sizeof(stat);
}

/* Grid: a block a piece. `partial` is [samples, pieces]. */
template <int N>
static __global__ void __launch_bounds__(threads)
    add_squares(samples s, stat *partial, const real *a, const real *b) {
  int64_t from = blockIdx.x % s.pieces * piece, to = min(from + piece, s.n), start = blockIdx.x / s.pieces * s.n;
  stat x[N], y[N], sum = 0;
#pragma unroll 4
  for (int64_t j = start + from + threadIdx.x * N; j < start + to; j += threads * N) {
    load_some<N>(x, a + j);
    load_some<N>(y, b + j);
    for (int k = 0; k < N; k++) sum += (x[k] - y[k]) * (x[k] - y[k]);
  }
  sum = block_sum<threads / PG_WARP>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* One block; warps take samples in turn. */
static __global__ void __launch_bounds__(threads) finish(samples s, stat *loss, stat *per_sample, const stat *partial) {
  int lane = threadIdx.x % PG_WARP;
  stat total = 0;
  for (int64_t i = threadIdx.x / PG_WARP; i < s.count; i += threads / PG_WARP) {
    stat sum = 0;
    for (int64_t k = lane; k < s.pieces; k += PG_WARP) sum += partial[i * s.pieces + k];
    sum = warp_sum(sum);
    if (lane != 0) continue;
    if (per_sample) per_sample[i] = sum / (stat)s.n;
    total += sum;
  }
  total = block_sum<threads / PG_WARP>(total);
  if (threadIdx.x == 0) *loss = total / (stat)(s.count * s.n);
}

pg_status PG_CUDA(mse)(const pg_call *call) {
  const mse_views v = mse_of(call);
  pg_status status = expect_mse(call);
  if (status) return status;
  samples s = cut(v.a);
  const real *a = pg_data<real>(v.a), *b = pg_data<real>(v.b);
  bool vectors = pg_vectorisable(a, s.n, s.n) && pg_vectorisable(b, s.n, s.n);
  auto kernel = vectors ? add_squares<PG_VECTOR> : add_squares<1>;
  stat *partial = static_cast<stat *>(call->scratch);
  LAUNCH(kernel, (unsigned)(s.count * s.pieces), threads, 0, call->stream, s, partial, a, b);
  LAUNCH(finish, 1, threads, 0, call->stream, s, pg_data<stat>(v.loss), pg_data<stat>(v.per_sample), partial);
  return pg_launched("mse");
}

/* ---- backward ---- */

/* Grid: a block a piece. da may be a, db may be b. */
template <int N>
static __global__ void __launch_bounds__(threads)
    spread(samples s, real *da, real *db, const stat *coefficient, const stat *sample_coefficient, const real *a,
           const real *b) {
  int64_t i = blockIdx.x / s.pieces, from = blockIdx.x % s.pieces * piece, to = min(from + piece, s.n);
  stat factor = coefficient ? 2 * *coefficient / (stat)(s.count * s.n) : 0, x[N], y[N];
  if (sample_coefficient) factor += 2 * sample_coefficient[i] / (stat)s.n;
  for (int64_t j = i * s.n + from + threadIdx.x * N; j < i * s.n + to; j += threads * N) {
    load_some<N>(x, a + j);
    load_some<N>(y, b + j);
    for (int k = 0; k < N; k++) {
      x[k] = factor * (x[k] - y[k]);
      y[k] = -x[k];
    }
    store_some<N>(da + j, x);
    if (db) store_some<N>(db + j, y);
  }
}

pg_status PG_CUDA(mse_backward)(const pg_call *call) {
  const mse_backward_views v = mse_backward_of(call);
  pg_status status = expect_mse_backward(call);
  if (status) return status;
  samples s = cut(v.a);
  real *da = pg_data<real>(v.da), *db = pg_data<real>(v.db);
  const real *x = pg_data<real>(v.a), *y = pg_data<real>(v.b);
  bool vectors = true;
  const real *rows[] = {da, db, x, y};
  for (const real *row : rows) vectors = vectors && pg_vectorisable(row, s.n, s.n);
  auto kernel = vectors ? spread<PG_VECTOR> : spread<1>;
  LAUNCH(kernel, (unsigned)(s.count * s.pieces), threads, 0, call->stream, s, da, db, pg_data<stat>(v.coefficient),
         pg_data<stat>(v.sample_coefficient), x, y);
  return pg_launched("mse_backward");
}
