#include "cuda.h"
#include "softmax/check.h"
#include "softmax/softmax.h"

struct matrix {
  int64_t rows, width;
};

/* Grid: pg_row_blocks. The row is read three times, from the second on out of a cache. y may be x. */
template <bool LOG, int N, int THREADS>
static __global__ void __launch_bounds__(PG_ROW_BLOCK) forward_rows(matrix m, real *y, const real *x) {
  int64_t r = row_of_thread<THREADS>(), start = r * m.width;
  int first = place_in_row<THREADS>() * N;
  if (r >= m.rows) return; /* a whole warp; a block has a row */
  stat v[N], most = -INFINITY, sum = 0;
  for (int64_t j = first; j < m.width; j += THREADS * N) {
    load_some<N>(v, x + start + j);
    for (int k = 0; k < N; k++) most = fmaxf(most, v[k]);
  }
  most = row_max<THREADS>(most);
  if (most == -INFINITY) most = 0; /* a row of -inf: no NaN from inf - inf here, 0/0 below */
  for (int64_t j = first; j < m.width; j += THREADS * N) {
    load_some<N>(v, x + start + j);
    for (int k = 0; k < N; k++) sum += pg_exp(v[k] - most);
  }
  sum = row_sum<THREADS>(sum);
  stat scale = 1 / sum, log_sum = pg_log(sum);
  for (int64_t j = first; j < m.width; j += THREADS * N) {
    load_some<N>(v, x + start + j);
    for (int k = 0; k < N; k++) v[k] = LOG ? v[k] - most - log_sum : pg_exp(v[k] - most) * scale;
    store_some<N>(y + start + j, v);
  }
}

/* Grid: pg_row_blocks. dx may be dy or y. */
template <bool LOG, int N, int THREADS>
static __global__ void __launch_bounds__(PG_ROW_BLOCK)
    backward_rows(matrix m, real *dx, const real *dy, const real *y) {
  int64_t r = row_of_thread<THREADS>(), start = r * m.width;
  int first = place_in_row<THREADS>() * N;
  if (r >= m.rows) return;
  stat d[N], v[N], sum = 0;
  for (int64_t j = first; j < m.width; j += THREADS * N) {
    load_some<N>(d, dy + start + j);
    if (!LOG) load_some<N>(v, y + start + j);
    for (int k = 0; k < N; k++) sum += LOG ? d[k] : d[k] * v[k];
  }
  sum = row_sum<THREADS>(sum);
  for (int64_t j = first; j < m.width; j += THREADS * N) {
    load_some<N>(d, dy + start + j);
    load_some<N>(v, y + start + j);
    for (int k = 0; k < N; k++) d[k] = LOG ? d[k] - pg_exp(v[k]) * sum : v[k] * (d[k] - sum);
    store_some<N>(dx + start + j, d);
  }
}

template <bool LOG>
static pg_status forward(const char *name, const pg_view *out, const pg_view *in, void *stream) {
  matrix m = {};
  pg_status status = forward_rows_of(name, out, in, &m.rows, &m.width);
  if (status) return status;
  real *y = pg_data<real>(out);
  const real *x = pg_data<real>(in);
  bool vectors = pg_vectorisable(y, m.width, m.width) && pg_vectorisable(x, m.width, m.width);
  auto kernel = vectors ? forward_rows<LOG, PG_VECTOR, PG_WARP> : forward_rows<LOG, 1, PG_WARP>;
  if (m.width > PG_LONG_ROW)
    kernel = vectors ? forward_rows<LOG, PG_VECTOR, PG_ROW_BLOCK> : forward_rows<LOG, 1, PG_ROW_BLOCK>;
  LAUNCH(kernel, pg_row_blocks(m.rows, m.width), PG_ROW_BLOCK, 0, stream, m, y, x);
  return pg_launched(name);
}

template <bool LOG>
static pg_status backward(const char *name, const pg_view *din, const pg_view *dout, const pg_view *out, void *stream) {
  matrix m = {};
  pg_status status = backward_rows_of(name, din, dout, out, &m.rows, &m.width);
  if (status) return status;
  real *dx = pg_data<real>(din);
  const real *dy = pg_data<real>(dout), *y = pg_data<real>(out);
  bool vectors = pg_vectorisable(dx, m.width, m.width) && pg_vectorisable(dy, m.width, m.width) &&
                 pg_vectorisable(y, m.width, m.width);
  auto kernel = vectors ? backward_rows<LOG, PG_VECTOR, PG_WARP> : backward_rows<LOG, 1, PG_WARP>;
  if (m.width > PG_LONG_ROW)
    kernel = vectors ? backward_rows<LOG, PG_VECTOR, PG_ROW_BLOCK> : backward_rows<LOG, 1, PG_ROW_BLOCK>;
  LAUNCH(kernel, pg_row_blocks(m.rows, m.width), PG_ROW_BLOCK, 0, stream, m, dx, dy, y);
  return pg_launched(name);
}

pg_status PG_CUDA(softmax)(const pg_call *call) {
  const softmax_views v = softmax_of(call);
  return forward<false>("softmax", v.y, v.x, call->stream);
}

pg_status PG_CUDA(log_softmax)(const pg_call *call) {
  const log_softmax_views v = log_softmax_of(call);
  return forward<true>("log_softmax", v.y, v.x, call->stream);
}

pg_status PG_CUDA(softmax_backward)(const pg_call *call) {
  const softmax_backward_views v = softmax_backward_of(call);
  return backward<false>("softmax_backward", v.dx, v.dy, v.y, call->stream);
}

pg_status PG_CUDA(log_softmax_backward)(const pg_call *call) {
  const log_softmax_backward_views v = log_softmax_backward_of(call);
  return backward<true>("log_softmax_backward", v.dx, v.dy, v.y, call->stream);
}
