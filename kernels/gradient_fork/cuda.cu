#include "cuda.h"
#include "gradient_fork/check.h"
#include "gradient_fork/gradient_fork.h"

static const int threads = 256;
static const int64_t piece = 8192; /* elements of a sample that are a block's work */

struct samples {
  int64_t count, n, pieces; /* of n elements each, in so many pieces */
};

static samples samples_of(const pg_view *a) {
  int64_t count = a->ndim ? a->shape[0] : 0, n = count ? pg_numel(a) / count : 0;
  return {count, n, pg_pieces(n, piece)};
}

/* Scratch: products [B, pieces, 3]. */
int64_t PG_CUDA(gradient_fork_scratch)(const pg_call *call) {
  const gradient_fork_views v = gradient_fork_of(call);
  samples s = samples_of(v.a);
  return s.count * s.pieces * 3 * (int64_t)sizeof(stat);
}

/* Grid: a block a piece. sum may be a or b. */
template <int N>
static __global__ void __launch_bounds__(threads)
    add_pieces(samples s, real *sum, stat *partial, const real *a, const real *b) {
  int64_t from = blockIdx.x % s.pieces * piece, to = min(from + piece, s.n), start = blockIdx.x / s.pieces * s.n;
  stat x[N], y[N], ab = 0, aa = 0, bb = 0;
#pragma unroll 2
  for (int64_t j = start + from + threadIdx.x * N; j < start + to; j += threads * N) {
    load_some<N>(x, a + j);
    load_some<N>(y, b + j);
    for (int k = 0; k < N; k++) {
      ab += x[k] * y[k];
      aa += x[k] * x[k];
      bb += y[k] * y[k];
      x[k] += y[k];
    }
    store_some<N>(sum + j, x);
  }
  ab = block_sum<threads / PG_WARP>(ab), aa = block_sum<threads / PG_WARP>(aa), bb = block_sum<threads / PG_WARP>(bb);
  if (threadIdx.x != 0) return;
  stat *out = partial + (int64_t)blockIdx.x * 3;
  out[0] = ab, out[1] = aa, out[2] = bb;
}

/* Grid: a warp a sample. */
static __global__ void __launch_bounds__(PG_ROW_BLOCK) add_products(samples s, stat *products, const stat *partial) {
  int64_t i = row_of_thread<PG_WARP>();
  int lane = place_in_row<PG_WARP>();
  if (i >= s.count) return;
  stat sums[3] = {};
  for (int64_t k = lane; k < s.pieces; k += PG_WARP)
    for (int e = 0; e < 3; e++) sums[e] += partial[(i * s.pieces + k) * 3 + e];
  for (int e = 0; e < 3; e++) {
    stat sum = warp_sum(sums[e]);
    if (lane == e) products[i * 3 + e] = sum;
  }
}

pg_status PG_CUDA(gradient_fork)(const pg_call *call) {
  const gradient_fork_views v = gradient_fork_of(call);
  pg_status status = expect_gradient_fork(call);
  if (status) return status;
  samples s = samples_of(v.a);
  real *sum = pg_data<real>(v.sum);
  const real *x = pg_data<real>(v.a), *y = pg_data<real>(v.b);
  bool vectors = pg_vectorisable(sum, s.n, s.n) && pg_vectorisable(x, s.n, s.n) && pg_vectorisable(y, s.n, s.n);
  stat *partial = static_cast<stat *>(call->scratch);
  auto kernel = vectors ? add_pieces<PG_VECTOR> : add_pieces<1>;
  LAUNCH(kernel, (unsigned)(s.count * s.pieces), threads, 0, call->stream, s, sum, partial, x, y);
  LAUNCH(add_products, pg_blocks(s.count, PG_ROW_BLOCK / PG_WARP), PG_ROW_BLOCK, 0, call->stream, s,
         pg_data<stat>(v.products), partial);
  return pg_launched("gradient_fork");
}
