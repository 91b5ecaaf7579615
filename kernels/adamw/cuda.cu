#include "cuda.h"
#include "adamw/adamw.h"
#include "adamw/check.h"

static const int threads = 256;

/* ---- square_sum ---- */

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

/* ---- adamw ---- */

#if PG_REAL != 0
pg_status PG_CUDA(adamw)(const pg_call *call) {
  (void)call;
  return pg_error(PG_ERROR_UNSUPPORTED, "adamw: on CUDA masters are float32; bfloat16 is for the working copy");
}
#else

struct buffers {
  float *parameters, *first, *second, *average;
  bfloat16 *working;
  const float *gradient;
  int64_t n;
};

/* What does not depend on the element. */
struct step_constants {
  float scale, beta1, rest1, beta2, rest2, keep, rate, root, epsilon, ema;
};

struct hyper {
  const void *numbers; /* [8] */
  bool wide;           /* float64, not float32 */
  const float *square_sum;
};

static __device__ __forceinline__ double number(const hyper &h, int k) {
  return h.wide ? static_cast<const double *>(h.numbers)[k] : (double)static_cast<const float *>(h.numbers)[k];
}

/* In float64, as on the CPU. */
static __device__ void compute_constants(step_constants *c, const hyper &h) {
  double lr = number(h, 0), beta1 = number(h, 1), beta2 = number(h, 2), clip = number(h, 5), step = number(h, 7);
  double factor = clip / (sqrt((double)*h.square_sum) + 1e-6);
  c->scale = (float)(clip > 0 && factor < 1 ? factor : 1);
  c->beta1 = (float)beta1, c->rest1 = (float)(1 - beta1);
  c->beta2 = (float)beta2, c->rest2 = (float)(1 - beta2);
  c->keep = (float)(1 - lr * number(h, 4));
  c->rate = (float)(lr / (1 - pow(beta1, step)));
  c->root = (float)(1 / sqrt(1 - pow(beta2, step)));
  c->epsilon = (float)number(h, 3);
  c->ema = (float)(1 - number(h, 6));
}

template <int N>
static __device__ __forceinline__ void store_working(bfloat16 *to, const float p[N]) {
  if constexpr (N == 1) *to = bfloat16{(uint16_t)pack_bfloat16(p[0], 0.0f)};
  else *reinterpret_cast<uint2 *>(to) = make_uint2(pack_bfloat16(p[0], p[1]), pack_bfloat16(p[2], p[3]));
}

/* N elements from j on. */
template <int N>
static __device__ __forceinline__ void step_some(const buffers &b, const step_constants &c, int64_t j) {
  float g[N], m[N], v[N], p[N], average[N] = {};
  load_some<N>(g, b.gradient + j);
  load_some<N>(m, b.first + j);
  load_some<N>(v, b.second + j);
  load_some<N>(p, b.parameters + j);
  if (b.average) load_some<N>(average, b.average + j);
  for (int k = 0; k < N; k++) {
    float gradient = g[k] * c.scale;
    m[k] = c.beta1 * m[k] + c.rest1 * gradient;
    v[k] = c.beta2 * v[k] + c.rest2 * gradient * gradient;
    p[k] = p[k] * c.keep - c.rate * m[k] / (sqrtf(v[k]) * c.root + c.epsilon);
    average[k] += c.ema * (p[k] - average[k]);
  }
  store_some<N>(b.first + j, m);
  store_some<N>(b.second + j, v);
  store_some<N>(b.parameters + j, p);
  if (b.average) store_some<N>(b.average + j, average);
  if (b.working) store_working<N>(b.working + j, p);
}

/* Grid-stride over N elements at a time, then those after the last whole N. */
template <int N>
static __global__ void __launch_bounds__(threads) step_all(buffers b, hyper h) {
  PG_SHARED(step_constants, constants, [1]);
  if (threadIdx.x == 0) compute_constants(constants, h);
  __syncthreads();
  step_constants c = constants[0];
  PG_GRID_STRIDE(i, b.n / N) step_some<N>(b, c, i * N);
  int64_t last = b.n / N * N + (int64_t)blockIdx.x * threads + threadIdx.x;
  if (last < b.n) step_some<1>(b, c, last);
}

/* As many blocks as an H100 holds at once, so that each computes the constants but once. */
static const unsigned most_blocks = 132 * 8;

pg_status PG_CUDA(adamw)(const pg_call *call) {
  const adamw_views v = adamw_of(call);
  pg_status status = expect_adamw(call);
  if (status) return status;
  int64_t n = pg_numel(v.parameters);
  buffers b = {pg_data<float>(v.parameters), pg_data<float>(v.first_moment), pg_data<float>(v.second_moment),
               pg_data<float>(v.average),    pg_data<bfloat16>(v.working),   pg_data<float>(v.gradient), n};
  hyper h = {v.hyper->data, v.hyper->dtype == PG_FLOAT64, pg_data<float>(v.square_sum)};
  bool vectors = true;
  const void *const all[] = {b.parameters, b.first, b.second, b.average, b.working, b.gradient};
  for (const void *data : all) vectors = vectors && pg_vectorisable(data, 0, 0);
  unsigned blocks = pg_blocks(n, threads * (vectors ? PG_VECTOR : 1));
  auto kernel = vectors ? step_all<PG_VECTOR> : step_all<1>;
  LAUNCH(kernel, blocks < most_blocks ? blocks : most_blocks, threads, 0, call->stream, b, h);
  return pg_launched("adamw");
}
#endif
