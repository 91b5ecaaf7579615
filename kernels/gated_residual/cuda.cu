#include "cuda_chunks.h"
#include "cuda_loop.h"

#include "gated_residual/check.h"
#include "gated_residual/gated_residual.h"

/* ---- forward ---- */

namespace {

/* Operands: out, x, y, gate. */
struct gating {
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    real x[N], y[N], gate[N];
    read<N>(x, g, 1, at);
    read<N>(y, g, 2, at);
    read<N>(gate, g, 3, at);
    for (int k = 0; k < N; k++) x[k] = store(load(x[k]) + load(gate[k]) * load(y[k]));
    write<N>(g, 0, at, x);
  }
};

}  // namespace

pg_status PG_CUDA(gated_residual)(const pg_call *call) {
  const gated_residual_views v = gated_residual_of(call);
  pg_status status = expect_gated_residual(call);
  if (status) return status;
  const pg_view *const views[4] = {v.out, v.x, v.y, v.gate};
  pg_loop loop;
  pg_loop_make(&loop, 4, views);
  pg_each<4, PG_VECTOR>(loop, gating{}, call->stream);
  return pg_launched("gated_residual");
}

/* ---- backward ---- */

static const int backward_warps = 8;
static const int64_t least_chunk = 64, enough_blocks = 4 * 132; /* to fill an H100 */

/* How many chunks a gate's rows are summed in: one where the gates make blocks enough. Shapes alone decide. */
static int64_t chunks_of(int64_t gates, int64_t rows, int64_t width) {
  int64_t blocks = gates * pg_pieces(width, PG_WARP * PG_VECTOR), most = pg_pieces(rows, least_chunk);
  int64_t chunks = pg_pieces(enough_blocks, blocks ? blocks : 1);
  return chunks < most ? chunks : most;
}

struct backward_arguments {
  real *dy, *dgate;             /* dgate may be NULL */
  stat *partial, *partial_bias; /* [gates, chunks, width] of dgate, where there are chunks, and of dbias; or NULL */
  const real *dout, *y, *gate;
  int64_t rows, width, chunk, gate_stride;
};

/* Grid: (columns, chunks of rows, gates), PG_WARP·N columns a block. A warp takes every backward_warps-th row of the
 * chunk and sums dout·y, and dy where BIAS, column by column; the warps' sums are added in order. */
template <int N, bool BIAS>
static __global__ void __launch_bounds__(backward_warps *PG_WARP) backward_columns(backward_arguments a) {
  PG_SHARED(stat, sums, [backward_warps][PG_WARP * N]);
  int lane = threadIdx.x % PG_WARP, warp = threadIdx.x / PG_WARP;
  int64_t j = ((int64_t)blockIdx.x * PG_WARP + lane) * N, group = blockIdx.z;
  int64_t first = blockIdx.y * a.chunk, last = min(first + a.chunk, a.rows);
  bool mine = j < a.width;
  stat gate[N], sum[N] = {}, sum_bias[BIAS ? N : 1] = {}, d[N], v[N];
  if (mine) load_some<N>(gate, a.gate + group * a.gate_stride + j);
  for (int64_t i = first + warp; mine && i < last; i += backward_warps) {
    int64_t at = (group * a.rows + i) * a.width + j;
    load_some<N>(d, a.dout + at);
    if (a.dgate) {
      load_some<N>(v, a.y + at);
      for (int k = 0; k < N; k++) sum[k] += d[k] * v[k];
    }
    for (int k = 0; k < N; k++) d[k] *= gate[k];
    if constexpr (BIAS)
      for (int k = 0; k < N; k++) sum_bias[k] += d[k];
    store_some<N>(a.dy + at, d);
  }
  int64_t start = (int64_t)blockIdx.x * PG_WARP * N, chunk = group * gridDim.y + blockIdx.y;
  auto add_up = [&](const stat mine[N], auto put) {
    for (int k = 0; k < N; k++) sums[warp][lane * N + k] = mine[k];
    __syncthreads();
    for (int c = threadIdx.x; c < PG_WARP * N && start + c < a.width; c += blockDim.x) {
      stat total = 0;
      for (int w = 0; w < backward_warps; w++) total += sums[w][c];
      put(start + c, total);
    }
  };
  if constexpr (BIAS) {
    add_up(sum_bias, [&](int64_t c, stat total) { a.partial_bias[chunk * a.width + c] = total; });
    __syncthreads(); /* the sums are read */
  }
  if (!a.dgate) return; /* all threads of the grid */
  add_up(sum, [&](int64_t c, stat total) {
    if (a.partial) a.partial[chunk * a.width + c] = total;
    else a.dgate[group * a.width + c] = store(total);
  });
}

int64_t PG_CUDA(gated_residual_backward_scratch)(const pg_call *call) {
  const gated_residual_backward_views v = gated_residual_backward_of(call);
  if (!summed_rows(&v) || v.dout->ndim != 3 || v.gate->ndim != 3) return 0;
  int64_t gates = v.gate->shape[0], width = v.dout->shape[2],
          chunks = chunks_of(gates, rows_a_gate(v.gate, v.dout), width);
  int64_t sums = (pg_present(v.dgate) && chunks > 1) + pg_present(v.dbias);
  return sums * gates * chunks * width * (int64_t)sizeof(stat);
}

pg_status PG_CUDA(gated_residual_backward)(const pg_call *call) {
  const gated_residual_backward_views v = gated_residual_backward_of(call);
  pg_status status = expect_gated_residual_backward(call);
  if (status) return status;
  int64_t gates = v.gate->shape[0], rows = rows_a_gate(v.gate, v.dout), width = v.dout->shape[2];
  PG_EXPECT(gates <= 65535, "gated_residual_backward: gate is %s; on CUDA there are at most 65535",
            pg_shape_text(v.gate));
  int64_t chunks = chunks_of(gates, rows, width), chunk = chunks ? pg_pieces(rows, chunks) : 0;
  stat *partial = pg_present(v.dgate) && chunks > 1 ? static_cast<stat *>(call->scratch) : nullptr;
  stat *partial_bias = static_cast<stat *>(call->scratch) + (partial ? gates * chunks * width : 0);
  backward_arguments a = {pg_data<real>(v.dy), pg_data<real>(v.dgate), partial, partial_bias,
                          pg_data<real>(v.dout), pg_data<real>(v.y), pg_data<real>(v.gate),
                          rows, width, chunk, v.gate->stride[0]};
  bool vectors = pg_vectorisable(a.gate, width, gates > 1 ? a.gate_stride : 0);
  const void *whole[] = {a.dy, a.dout, a.y};
  for (const void *data : whole) vectors = vectors && pg_vectorisable(data, width, width);
  auto kernel = pg_present(v.dbias) ? vectors ? backward_columns<PG_VECTOR, true> : backward_columns<1, true>
                : vectors             ? backward_columns<PG_VECTOR, false>
                                      : backward_columns<1, false>;
  dim3 grid(pg_blocks(width, PG_WARP * (vectors ? PG_VECTOR : 1)), (unsigned)chunks, (unsigned)gates);
  LAUNCH(kernel, grid, backward_warps * PG_WARP, 0, call->stream, a);
  if (a.dgate && a.partial) pg_add_chunks(a.dgate, nullptr, a.partial, gates, chunks, width, width, call->stream);
  if (pg_present(v.dbias))
    pg_add_chunks(pg_data<real>(v.dbias), nullptr, partial_bias, 1, gates * chunks, width, width, call->stream);
  return pg_launched("gated_residual_backward");
}
