#include "cuda_chunks.h"
#include "layernorm/check.h"
#include "layernorm/layernorm.h"

/* Both forms are one computation over groups of rows: a group (an image, or all rows of the plain form) has one
 * multiplier `base + scale_j` and one shift. A warp takes a row; its lanes take elements, PG_VECTOR at a time where the
 * addresses allow that. */
struct normalisation {
  int64_t groups, rows, width; /* x is [groups, rows, width] */
  stat base;                   /* 0: scale is the whole multiplier; 1: it is added to one */
  const real *scale, *shift;   /* row of the first group, or NULL: multiplier 1, shift 0 */
  int64_t scale_stride, shift_stride;
};

static bool are_vectors(const normalisation &n) {
  return pg_vectorisable(n.scale, n.width, n.scale_stride) && pg_vectorisable(n.shift, n.width, n.shift_stride);
}

/* base + scale_j for N elements from j on. */
template <int N>
static __device__ __forceinline__ void multiplier(stat out[N], const real *scale, stat base, int64_t j) {
  for (int k = 0; k < N; k++) out[k] = 1.0f;
  if (!scale) return;
  load_some<N>(out, scale + j);
  for (int k = 0; k < N; k++) out[k] += base;
}

/* ---- forward ---- */

static const int forward_warps = 4;

/* Grid: forward_warps rows a block. The row is read three times, from the second on out of the L1 cache. */
template <int N>
static __global__ void __launch_bounds__(forward_warps *PG_WARP)
    forward_rows(normalisation n, real *y, stat *mean, stat *rstd, const real *x, stat epsilon) {
  int lane = threadIdx.x % PG_WARP;
  int64_t r = (int64_t)blockIdx.x * forward_warps + threadIdx.x / PG_WARP, group = r / n.rows;
  if (r >= n.groups * n.rows) return; /* a whole warp, and nobody waits for it */
  const real *row = x + r * n.width;
  stat v[N], sum = 0, squares = 0;
  for (int64_t j = lane * N; j < n.width; j += PG_WARP * N) {
    load_some<N>(v, row + j);
    for (int k = 0; k < N; k++) sum += v[k];
  }
  stat m = warp_sum(sum) / (stat)n.width;
  for (int64_t j = lane * N; j < n.width; j += PG_WARP * N) {
    load_some<N>(v, row + j);
    for (int k = 0; k < N; k++) squares += (v[k] - m) * (v[k] - m);
  }
  stat s = 1.0f / sqrtf(warp_sum(squares) / (stat)n.width + epsilon);
  if (lane == 0) mean[r] = m, rstd[r] = s;
  const real *scale = n.scale ? n.scale + group * n.scale_stride : nullptr;
  const real *shift = n.shift ? n.shift + group * n.shift_stride : nullptr;
  for (int64_t j = lane * N; j < n.width; j += PG_WARP * N) {
    stat times[N], plus[N] = {};
    load_some<N>(v, row + j);
    multiplier<N>(times, scale, n.base, j);
    if (shift) load_some<N>(plus, shift + j);
    for (int k = 0; k < N; k++) v[k] = (v[k] - m) * s * times[k] + plus[k];
    store_some<N>(y + r * n.width + j, v);
  }
}

static void forward(const normalisation &n, real *y, stat *mean, stat *rstd, const real *x, double epsilon,
                    void *stream) {
  unsigned grid = pg_blocks(n.groups * n.rows, forward_warps);
  bool vectors = are_vectors(n) && pg_vectorisable(x, n.width, n.width) && pg_vectorisable(y, n.width, n.width);
  auto kernel = vectors ? forward_rows<PG_VECTOR> : forward_rows<1>;
  LAUNCH(kernel, grid, forward_warps * PG_WARP, 0, stream, n, y, mean, rstd, x, (stat)epsilon);
}

pg_status PG_CUDA(layernorm)(const pg_call *call) {
  const layernorm_views v = layernorm_of(call);
  pg_status status = expect_layernorm(call);
  if (status) return status;
  int64_t width = v.x->shape[v.x->ndim - 1], rows = width ? pg_numel(v.x) / width : 0;
  normalisation n = {1, rows, width, 0, pg_data<real>(v.weight), pg_data<real>(v.bias), 0, 0};
  forward(n, pg_data<real>(v.y), pg_data<stat>(v.mean), pg_data<stat>(v.rstd), pg_data<real>(v.x),
          layernorm_floats_of(call).epsilon, call->stream);
  return pg_launched("layernorm");
}

pg_status PG_CUDA(layernorm_modulate)(const pg_call *call) {
  const layernorm_modulate_views v = layernorm_modulate_of(call);
  pg_status status = expect_layernorm_modulate(call);
  if (status) return status;
  const real *scale_rows = pg_data<real>(v.scale), *shift_rows = pg_data<real>(v.shift);
  normalisation n = {v.x->shape[0], v.x->shape[1], v.x->shape[2],      1,
                     scale_rows,  shift_rows,  v.scale->stride[0], v.shift->stride[0]};
  forward(n, pg_data<real>(v.y), pg_data<stat>(v.mean), pg_data<stat>(v.rstd), pg_data<real>(v.x),
          layernorm_modulate_floats_of(call).epsilon, call->stream);
  return pg_launched("layernorm_modulate");
}

/* ---- backward ---- */

static const int chunk_rows = 32, most_backward_warps = 8;

/* Shared memory holds [warps, 2, width] sums; as many warps as leave room for two blocks a multiprocessor. */
static const int64_t most_sum_bytes = 80 << 10;
static int backward_warps(int64_t width) {
  int64_t warps = most_sum_bytes / (2 * width * (int64_t)sizeof(stat));
  return (int)(warps < 1 ? 1 : warps > most_backward_warps ? most_backward_warps : warps);
}

/* Grid: (chunks of rows, groups). A warp takes every blockDim/32-th row of the chunk: dx, and its sums of dy·x̂ and dy, an
 * element being the same lane's in every row; at the end the warps' sums are added in order. Sums of every N-th element lie
 * side by side, so that a warp's lanes, N elements apart, meet different banks of shared memory.
 * `partial` is [groups, chunks, 2, width]. dx may be dy or dresidual. */
template <int N>
static __global__ void backward_rows(normalisation n, real *dx, stat *partial, const real *dy, const real *x,
                                     const stat *mean, const stat *rstd, const real *dresidual) {
  PG_SHARED_DYNAMIC(stat, sums);
  int lane = threadIdx.x % PG_WARP, warp = threadIdx.x / PG_WARP, warps = blockDim.x / PG_WARP;
  int64_t group = blockIdx.y, first = (int64_t)blockIdx.x * chunk_rows;
  int64_t last = min(first + chunk_rows, n.rows), nths = n.width / N;
  stat *sum_scale = sums + warp * 2 * n.width, *sum_shift = sum_scale + n.width;
  const real *scale = n.scale ? n.scale + group * n.scale_stride : nullptr;
  for (int64_t j = lane; j < 2 * n.width; j += PG_WARP) sum_scale[j] = 0.0f;
  __syncwarp();
  for (int64_t i = first + warp; i < last; i += warps) {
    int64_t r = group * n.rows + i, start = r * n.width;
    stat m = mean[r], s = rstd[r], sum_g = 0, sum_gx = 0, d[N], v[N], times[N];
    for (int64_t j = lane * N; j < n.width; j += PG_WARP * N) {
      load_some<N>(d, dy + start + j);
      load_some<N>(v, x + start + j);
      multiplier<N>(times, scale, n.base, j);
      stat to_scale[N], to_shift[N]; /* read all at once: after a write the next read would have to wait */
      for (int k = 0; k < N; k++) to_scale[k] = sum_scale[k * nths + j / N], to_shift[k] = sum_shift[k * nths + j / N];
      for (int k = 0; k < N; k++) {
        stat normal = (v[k] - m) * s, g = d[k] * times[k];
        sum_g += g;
        sum_gx += g * normal;
        to_scale[k] += d[k] * normal;
        to_shift[k] += d[k];
      }
      for (int k = 0; k < N; k++) sum_scale[k * nths + j / N] = to_scale[k], sum_shift[k * nths + j / N] = to_shift[k];
    }
    stat mean_g = warp_sum(sum_g) / (stat)n.width, mean_gx = warp_sum(sum_gx) / (stat)n.width;
    for (int64_t j = lane * N; j < n.width; j += PG_WARP * N) {
      stat around[N] = {};
      load_some<N>(d, dy + start + j);
      load_some<N>(v, x + start + j);
      multiplier<N>(times, scale, n.base, j);
      if (dresidual) load_some<N>(around, dresidual + start + j);
      for (int k = 0; k < N; k++) d[k] = around[k] + s * (d[k] * times[k] - mean_g - (v[k] - m) * s * mean_gx);
      store_some<N>(dx + start + j, d);
    }
  }
  __syncthreads();
  stat *out = partial + (group * gridDim.x + blockIdx.x) * 2 * n.width;
  for (int64_t j = threadIdx.x; j < 2 * n.width; j += blockDim.x) {
    int64_t e = j % n.width, place = j - e + e % N * nths + e / N;
    stat sum = 0;
    for (int w = 0; w < warps; w++) sum += sums[w * 2 * n.width + place];
    out[j] = sum;
  }
}

static int64_t backward_scratch(int64_t groups, int64_t rows, int64_t width) {
  return groups * pg_pieces(rows, chunk_rows) * 2 * width * (int64_t)sizeof(stat);
}

/* The views of both backward kernels; `dscale` and `dshift` are [groups, width] or NULL. */
struct gradients {
  const pg_view *dx, *dscale, *dshift, *dy, *x, *mean, *rstd, *dresidual;
};

static pg_status backward(const normalisation &n, const gradients &v, const pg_call *call, const char *name) {
  if (n.width == 0) return PG_OK;
  int warps = backward_warps(n.width);
  size_t shared_bytes = (size_t)(warps * 2 * n.width) * sizeof(stat);
  PG_EXPECT(n.width <= most_sum_bytes / (int64_t)(2 * sizeof(stat)),
            "%s: x is %s; on CUDA its last dimension is at most %lld", name, pg_shape_text(v.x),
            (long long)(most_sum_bytes / (int64_t)(2 * sizeof(stat))));
  PG_EXPECT(n.groups <= 65535, "%s: x is %s; on CUDA its first dimension is at most 65535", name,
            pg_shape_text(v.x));
  real *dx = pg_data<real>(v.dx), *dscale = pg_data<real>(v.dscale), *dshift = pg_data<real>(v.dshift);
  const real *dy = pg_data<real>(v.dy), *x = pg_data<real>(v.x), *dresidual = pg_data<real>(v.dresidual);
  const void *rows[] = {dx, dy, x, dresidual};
  bool vectors = are_vectors(n);
  for (const void *row : rows) vectors = vectors && pg_vectorisable(row, n.width, n.width);
  auto kernel = vectors ? backward_rows<PG_VECTOR> : backward_rows<1>;
  stat *partial = static_cast<stat *>(call->scratch);
  int64_t chunks = pg_pieces(n.rows, chunk_rows);
  LAUNCH(kernel, dim3((unsigned)chunks, (unsigned)n.groups), warps * PG_WARP, shared_bytes, call->stream, n, dx,
         partial, dy, x, pg_data<stat>(v.mean), pg_data<stat>(v.rstd), dresidual);
  if (dscale || dshift) pg_add_chunks(dscale, dshift, partial, n.groups, chunks, 2 * n.width, n.width, call->stream);
  return pg_launched(name);
}

int64_t PG_CUDA(layernorm_backward_scratch)(const pg_call *call) {
  const layernorm_backward_views v = layernorm_backward_of(call);
  int64_t width = v.x->ndim ? v.x->shape[v.x->ndim - 1] : 0;
  return width ? backward_scratch(1, pg_numel(v.x) / width, width) : 0;
}

pg_status PG_CUDA(layernorm_backward)(const pg_call *call) {
  const layernorm_backward_views v = layernorm_backward_of(call);
  pg_status status = expect_layernorm_backward(call);
  if (status) return status;
  int64_t width = v.x->shape[v.x->ndim - 1];
  normalisation n = {1, width ? pg_numel(v.x) / width : 0, width, 0, pg_data<real>(v.weight), nullptr, 0, 0};
  return backward(n, {v.dx, v.dweight, v.dbias, v.dy, v.x, v.mean, v.rstd, v.dresidual}, call, "layernorm_backward");
}

int64_t PG_CUDA(layernorm_modulate_backward_scratch)(const pg_call *call) {
  const layernorm_modulate_backward_views v = layernorm_modulate_backward_of(call);
  return v.x->ndim == 3 ? backward_scratch(v.x->shape[0], v.x->shape[1], v.x->shape[2]) : 0;
}

pg_status PG_CUDA(layernorm_modulate_backward)(const pg_call *call) {
  const layernorm_modulate_backward_views v = layernorm_modulate_backward_of(call);
  pg_status status = expect_layernorm_modulate_backward(call);
  if (status) return status;
  normalisation n = {v.x->shape[0],          v.x->shape[1], v.x->shape[2],      1,
                     pg_data<real>(v.scale), nullptr,       v.scale->stride[0], 0};
  const gradients views = {v.dx, v.dscale, v.dshift, v.dy, v.x, v.mean, v.rstd, v.dresidual};
  return backward(n, views, call, "layernorm_modulate_backward");
}
