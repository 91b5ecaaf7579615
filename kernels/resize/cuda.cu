// nvcc: -fmad=false
/* No fused multiply-add: where a tap begins is decided by rounding, as on the CPU. */
#include "cuda_loop.h"

#include "resize/geometry.h"
#include "resize/resize.h"

/* ---- bands, built by a thread an output ---- */

/* The inputs [*low, *high] that output i of n2 reads, and what its weights are divided by. */
static __device__ __forceinline__ double reach_of(const geometry &g, int64_t n, int64_t n2, int64_t i, int64_t *low,
                                                  int64_t *high) {
  double centre, stretch, sum = 0;
  int64_t first, last;
  support_of(&g, n, n2, i, &centre, &stretch, &first, &last);
  *low = clamp_index(first, n), *high = clamp_index(last, n);
  if (!g.antialias) return 1;
  for (int64_t k = first; k <= last; k++) sum += filter(&g, ((double)k - centre) / stretch);
  return sum;
}

/* The weight of input k in output i; without antialias an input beyond an edge is the edge's. */
static __device__ __forceinline__ double taken(const geometry &g, int64_t n, int64_t n2, int64_t i, int64_t k) {
  double centre, stretch, weight = 0;
  int64_t first, last;
  support_of(&g, n, n2, i, &centre, &stretch, &first, &last);
  for (int64_t at = first; at <= last; at++)
    if (clamp_index(at, n) == k) weight += filter(&g, ((double)at - centre) / stretch);
  return weight;
}

static __device__ __forceinline__ void build_forward(const geometry &g, const band &m, int64_t i) {
  int64_t low, high;
  double sum = reach_of(g, m.n_in, m.n_out, i, &low, &high);
  m.start[i] = (int32_t)low;
  for (int64_t k = 0; k < m.taps; k++)
    m.weight[k * m.n_out + i] = low + k <= high ? (stat)(taken(g, m.n_in, m.n_out, i, low + k) / sum) : 0;
}

/* The transpose: m maps n2 values to n. The outputs that input k of the forward reaches are a run of i, which is
 * found by bisection, since what an output reads moves on with i. */
static __device__ __forceinline__ void build_backward(const geometry &g, const band &m, int64_t k) {
  int64_t n = m.n_out, n2 = m.n_in, low, high, first = 0;
  for (int64_t end = n2; first < end;) {
    int64_t middle = (first + end) / 2;
    reach_of(g, n, n2, middle, &low, &high);
    if (high >= k) end = middle;
    else first = middle + 1;
  }
  m.start[k] = (int32_t)(first < n2 ? first : 0);
  for (int64_t tap = 0; tap < m.taps; tap++) {
    int64_t i = first + tap;
    stat weight = 0;
    if (i < n2) {
      double sum = reach_of(g, n, n2, i, &low, &high);
      if (low <= k && k <= high) weight = (stat)(taken(g, n, n2, i, k) / sum);
    }
    m.weight[tap * n + k] = weight;
  }
}

static const int band_threads = 64;

static __global__ void __launch_bounds__(band_threads) build_bands(geometry g, band down, band across, bool backward) {
  int64_t i = (int64_t)blockIdx.x * band_threads + threadIdx.x;
  if (i >= down.n_out + across.n_out) return;
  const band &m = i < down.n_out ? down : across;
  if (i >= down.n_out) i -= down.n_out;
  if (backward) build_backward(g, m, i);
  else build_forward(g, m, i);
}

/* ---- both bands in one pass ---- */

struct resampling {
  band down, across;
  int64_t outer, inner, in_skip, out_skip; /* in is [outer, in_skip + rows·columns, inner] */
};

/* N inner elements of a place of the result a thread: Σ_b across_b·(Σ_a down_a·in). */
template <int N>
static __global__ void __launch_bounds__(PG_EACH_THREADS) resample(resampling s, real *out, const real *in) {
  int64_t vectors = s.inner / N, places = s.out_skip + s.down.n_out * s.across.n_out;
  PG_GRID_STRIDE(unit, s.outer * places * vectors) {
    int64_t at = quotient(unit, vectors), j = (unit - at * vectors) * N;
    int64_t plane = quotient(at, places), place = at - plane * places - s.out_skip;
    stat sum[N] = {};
    if (place >= 0) {
      int64_t r = quotient(place, s.across.n_out), c = place - r * s.across.n_out, columns = s.across.n_in;
      int64_t corner = s.in_skip + s.down.start[r] * columns + s.across.start[c];
      const real *from = in + (plane * (s.in_skip + s.down.n_in * columns) + corner) * s.inner + j;
      for (int64_t b = 0; b < s.across.taps; b++) {
        stat across = s.across.weight[b * s.across.n_out + c], column[N] = {}, v[N];
        if (across == 0) continue; /* there may be nothing behind it */
        for (int64_t a = 0; a < s.down.taps; a++) {
          stat down = s.down.weight[a * s.down.n_out + r];
          if (down == 0) continue;
          load_some<N>(v, from + (a * columns + b) * s.inner);
          for (int k = 0; k < N; k++) column[k] += down * v[k];
        }
        for (int k = 0; k < N; k++) sum[k] += across * column[k];
      }
    }
    store_some<N>(out + at * s.inner + j, sum);
  }
}

static int64_t scratch_of(const geometry *g, int backward) {
  band down, across;
  bands_of(g, backward, &down, &across);
  return band_bytes(&down) + band_bytes(&across);
}

static void run(const geometry &g, bool backward, const pg_view *to, const pg_view *from, const pg_call *call) {
  resampling s = {};
  bands_of(&g, backward, &s.down, &s.across);
  place_band(&s.across, place_band(&s.down, static_cast<char *>(call->scratch)));
  s.outer = g.outer, s.inner = g.inner;
  (backward ? s.out_skip : s.in_skip) = g.skip;
  LAUNCH(build_bands, pg_blocks(s.down.n_out + s.across.n_out, band_threads), band_threads, 0, call->stream, g, s.down,
         s.across, backward);
  real *out = pg_data<real>(to);
  const real *in = pg_data<real>(from);
  bool vectors = pg_vectorisable(out, s.inner, s.inner) && pg_vectorisable(in, s.inner, s.inner);
  int64_t units = s.outer * (s.out_skip + s.down.n_out * s.across.n_out) * (vectors ? s.inner / PG_VECTOR : s.inner);
  auto kernel = vectors ? resample<PG_VECTOR> : resample<1>;
  LAUNCH(kernel, pg_stride_blocks(units, PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream, s, out, in);
}

/* ---- kernels ---- */

int64_t PG_CUDA(resize_scratch)(const pg_call *call) {
  const resize_views v = resize_of(call);
  geometry g = {};
  return read_geometry(&g, "resize", call, v.x, v.y) ? -1 : scratch_of(&g, 0);
}

pg_status PG_CUDA(resize)(const pg_call *call) {
  const resize_views v = resize_of(call);
  geometry g = {};
  pg_status status = read_geometry(&g, "resize", call, v.x, v.y);
  if (status) return status;
  run(g, false, v.y, v.x, call);
  return pg_launched("resize");
}

int64_t PG_CUDA(resize_backward_scratch)(const pg_call *call) {
  const resize_backward_views v = resize_backward_of(call);
  geometry g = {};
  return read_geometry(&g, "resize_backward", call, v.dx, v.dy) ? -1 : scratch_of(&g, 1);
}

pg_status PG_CUDA(resize_backward)(const pg_call *call) {
  const resize_backward_views v = resize_backward_of(call);
  geometry g = {};
  pg_status status = read_geometry(&g, "resize_backward", call, v.dx, v.dy);
  if (status) return status;
  run(g, true, v.dx, v.dy, call);
  return pg_launched("resize_backward");
}
