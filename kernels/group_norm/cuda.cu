/* Group normalisation on GPUs. A block takes a plane, one channel of one image: for the sums, and then for its
 * elements; in between a warp adds up a group's planes. */
#include "cuda.h"

#include "activation/functions.h"
#include "group_norm/check.h"
#include "group_norm/group_norm.h"

static const int threads = 256;

/* One plane's multiplier and shift around its group's statistics: x̂ = (x − mean)·rstd, z = x̂·weight + bias. */
struct plane {
  stat mean, rstd, weight, bias;
};

static __device__ __forceinline__ plane plane_of(const group_sizes &n, const stat *mean, const stat *rstd,
                                                 const real *weight, const real *bias, int64_t p) {
  const int64_t group = p / n.members, channel = p % n.channels;
  return {mean[group], rstd[group], weight ? load(weight[channel]) : 1.0f, bias ? load(bias[channel]) : 0.0f};
}

/* The thread's elements of plane p, N at a time: for (int64_t j ...) with at = the first of them. */
#define EACH_OF_PLANE(j, n) for (int64_t j = threadIdx.x * N; j < (n).size; j += threads * N)

/* ---- forward ---- */

/* Grid: planes. partial[p] = the plane's mean and its sum of squares around that. */
template <int N>
static __global__ void __launch_bounds__(threads) plane_statistics(group_sizes n, stat *partial, const real *x) {
  const real *row = x + blockIdx.x * n.size;
  stat v[N], sum = 0, squares = 0;
  EACH_OF_PLANE(j, n) {
    load_some<N>(v, row + j);
    for (int k = 0; k < N; k++) sum += v[k];
  }
  const stat mean = block_sum<threads / PG_WARP>(sum) / (stat)n.size;
  EACH_OF_PLANE(j, n) {
    load_some<N>(v, row + j);
    for (int k = 0; k < N; k++) squares += (v[k] - mean) * (v[k] - mean);
  }
  squares = block_sum<threads / PG_WARP>(squares);
  if (threadIdx.x == 0) partial[2 * blockIdx.x] = mean, partial[2 * blockIdx.x + 1] = squares;
}

/* Grid: groups, a warp each. */
static __global__ void __launch_bounds__(PG_WARP)
    group_statistics(group_sizes n, stat *mean, stat *rstd, const stat *partial, stat epsilon) {
  const stat *planes = partial + 2 * blockIdx.x * n.members;
  stat sum = 0, squares = 0;
  for (int64_t c = threadIdx.x; c < n.members; c += PG_WARP) sum += planes[2 * c];
  const stat centre = warp_sum(sum) / (stat)n.members;
  for (int64_t c = threadIdx.x; c < n.members; c += PG_WARP) {
    const stat d = planes[2 * c] - centre;
    squares += planes[2 * c + 1] + d * d * (stat)n.size;
  }
  squares = warp_sum(squares);
  if (threadIdx.x != 0) return;
  mean[blockIdx.x] = centre;
  rstd[blockIdx.x] = 1.0f / sqrtf(squares / (stat)(n.members * n.size) + epsilon);
}

/* Grid: planes. */
template <int N>
static __global__ void __launch_bounds__(threads)
    normalise(group_sizes n, real *y, const stat *mean, const stat *rstd, const real *x, const real *weight,
              const real *bias, int activation) {
  const plane p = plane_of(n, mean, rstd, weight, bias, blockIdx.x);
  const stat times = p.rstd * p.weight;
  stat v[N];
  EACH_OF_PLANE(j, n) {
    load_some<N>(v, x + blockIdx.x * n.size + j);
    for (int k = 0; k < N; k++) v[k] = activate((v[k] - p.mean) * times + p.bias, 0, activation);
    store_some<N>(y + blockIdx.x * n.size + j, v);
  }
}

static bool are_vectors(const group_sizes &n, const void *a, const void *b, const void *c) {
  return pg_vectorisable(a, n.size, n.size) && pg_vectorisable(b, n.size, n.size) && pg_vectorisable(c, n.size, n.size);
}

int64_t PG_CUDA(group_norm_scratch)(const pg_call *call) {
  const pg_view *x = group_norm_of(call).x;
  return x->ndim >= 2 ? x->shape[0] * x->shape[1] * 2 * (int64_t)sizeof(stat) : 0;
}

pg_status PG_CUDA(group_norm)(const pg_call *call) {
  const group_norm_views v = group_norm_of(call);
  const pg_status status = expect_group_norm(call);
  if (status) return status;
  const group_norm_ints i = group_norm_ints_of(call);
  const group_sizes n = group_sizes_of(v.x, i.groups);
  const unsigned planes = (unsigned)(n.images * n.channels), groups = (unsigned)(n.images * n.groups);
  stat *partial = static_cast<stat *>(call->scratch), *mean = pg_data<stat>(v.mean), *rstd = pg_data<stat>(v.rstd);
  real *y = pg_data<real>(v.y);
  const real *x = pg_data<real>(v.x), *weight = pg_data<real>(v.weight), *bias = pg_data<real>(v.bias);
  const bool vectors = are_vectors(n, x, y, y);
  LAUNCH((vectors ? plane_statistics<PG_VECTOR> : plane_statistics<1>), planes, threads, 0, call->stream, n, partial,
         x);
  LAUNCH(group_statistics, groups, PG_WARP, 0, call->stream, n, mean, rstd, partial,
         (stat)group_norm_floats_of(call).epsilon);
  LAUNCH((vectors ? normalise<PG_VECTOR> : normalise<1>), planes, threads, 0, call->stream, n, y, mean, rstd, x, weight,
         bias, (int)i.activation);
  return pg_launched("group_norm");
}

/* ---- backward ---- */

/* d = dy·f'(z), from dy and x̂. */
static __device__ __forceinline__ stat through(stat dy, stat normal, const plane &p, int activation) {
  return activation ? activate(dy, normal * p.weight + p.bias, ACTIVATION_DERIVATIVE + activation) : dy;
}

/* Grid: planes. sums[p] = Σ d, Σ d·x̂. */
template <int N>
static __global__ void __launch_bounds__(threads)
    sum_planes(group_sizes n, stat *sums, const real *dy, const real *x, const stat *mean, const stat *rstd,
               const real *weight, const real *bias, int activation) {
  const plane p = plane_of(n, mean, rstd, weight, bias, blockIdx.x);
  stat g[N], v[N], sum = 0, sum_normal = 0;
  EACH_OF_PLANE(j, n) {
    load_some<N>(g, dy + blockIdx.x * n.size + j);
    load_some<N>(v, x + blockIdx.x * n.size + j);
    for (int k = 0; k < N; k++) {
      const stat normal = (v[k] - p.mean) * p.rstd, d = through(g[k], normal, p, activation);
      sum += d;
      sum_normal += d * normal;
    }
  }
  sum = block_sum<threads / PG_WARP>(sum);
  sum_normal = block_sum<threads / PG_WARP>(sum_normal);
  if (threadIdx.x == 0) sums[2 * blockIdx.x] = sum, sums[2 * blockIdx.x + 1] = sum_normal;
}

/* Grid: planes; each adds up its group's sums, times the weights, by its first warp. */
template <int N>
static __global__ void __launch_bounds__(threads)
    backward_planes(group_sizes n, real *dx, const stat *sums, const real *dy, const real *x, const stat *mean,
                    const stat *rstd, const real *weight, const real *bias, int activation) {
  PG_SHARED(stat, means, [2]);
  const int64_t first = blockIdx.x / n.members * n.members, channel = first % n.channels;
  if (threadIdx.x < PG_WARP) {
    stat sum = 0, sum_normal = 0;
    for (int64_t c = threadIdx.x; c < n.members; c += PG_WARP) {
      const stat w = weight ? load(weight[channel + c]) : 1.0f;
      sum += sums[2 * (first + c)] * w;
      sum_normal += sums[2 * (first + c) + 1] * w;
    }
    sum = warp_sum(sum), sum_normal = warp_sum(sum_normal);
    const stat count = (stat)(n.members * n.size);
    if (threadIdx.x == 0) means[0] = sum / count, means[1] = sum_normal / count;
  }
  __syncthreads();
  const plane p = plane_of(n, mean, rstd, weight, bias, blockIdx.x);
  stat g[N], v[N];
  EACH_OF_PLANE(j, n) {
    load_some<N>(g, dy + blockIdx.x * n.size + j);
    load_some<N>(v, x + blockIdx.x * n.size + j);
    for (int k = 0; k < N; k++) {
      const stat normal = (v[k] - p.mean) * p.rstd, d = through(g[k], normal, p, activation);
      g[k] = p.rstd * (d * p.weight - means[0] - normal * means[1]);
    }
    store_some<N>(dx + blockIdx.x * n.size + j, g);
  }
}

/* A thread a channel: the images' sums in order. */
static __global__ void add_images(group_sizes n, real *dweight, real *dbias, const stat *sums) {
  PG_GRID_STRIDE(c, n.channels) {
    stat sum = 0, sum_normal = 0;
    for (int64_t b = 0; b < n.images; b++) {
      sum += sums[2 * (b * n.channels + c)];
      sum_normal += sums[2 * (b * n.channels + c) + 1];
    }
    if (dbias) dbias[c] = store(sum);
    if (dweight) dweight[c] = store(sum_normal);
  }
}

int64_t PG_CUDA(group_norm_backward_scratch)(const pg_call *call) {
  const pg_view *x = group_norm_backward_of(call).x;
  return x->ndim >= 2 ? x->shape[0] * x->shape[1] * 2 * (int64_t)sizeof(stat) : 0;
}

pg_status PG_CUDA(group_norm_backward)(const pg_call *call) {
  const group_norm_backward_views v = group_norm_backward_of(call);
  const pg_status status = expect_group_norm_backward(call);
  if (status) return status;
  const group_norm_backward_ints i = group_norm_backward_ints_of(call);
  const group_sizes n = group_sizes_of(v.x, i.groups);
  const unsigned planes = (unsigned)(n.images * n.channels);
  const int activation = (int)i.activation;
  stat *sums = static_cast<stat *>(call->scratch);
  real *dx = pg_data<real>(v.dx), *dweight = pg_data<real>(v.dweight), *dbias = pg_data<real>(v.dbias);
  const real *dy = pg_data<real>(v.dy), *x = pg_data<real>(v.x);
  const real *weight = pg_data<real>(v.weight), *bias = pg_data<real>(v.bias);
  const stat *mean = pg_data<stat>(v.mean), *rstd = pg_data<stat>(v.rstd);
  const bool vectors = are_vectors(n, x, dy, dx);
  LAUNCH((vectors ? sum_planes<PG_VECTOR> : sum_planes<1>), planes, threads, 0, call->stream, n, sums, dy, x, mean,
         rstd, weight, bias, activation);
  LAUNCH((vectors ? backward_planes<PG_VECTOR> : backward_planes<1>), planes, threads, 0, call->stream, n, dx, sums, dy,
         x, mean, rstd, weight, bias, activation);
  if (dweight || dbias)
    LAUNCH(add_images, pg_stride_blocks(n.channels, 128), 128, 0, call->stream, n, dweight, dbias, sums);
  return pg_launched("group_norm_backward");
}
