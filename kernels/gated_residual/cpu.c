#include "cpu.h"
#include "gated_residual/check.h"
#include "gated_residual/gated_residual.h"


pg_status PG_CPU(gated_residual)(const pg_call *call) {
  const gated_residual_views v = gated_residual_of(call);
  pg_status status = expect_gated_residual(call);
  if (status) return status;
  int64_t rows = v.x->shape[1], width = v.x->shape[2], gate_stride = v.gate->shape[0] == 1 ? 0 : v.gate->stride[0];
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < v.x->shape[0] * rows; r++) {
    const real *xs = (const real *)v.x->data + r * width, *ys = (const real *)v.y->data + r * width;
    const real *g = (const real *)v.gate->data + r / rows * gate_stride;
    real *out = (real *)v.out->data + r * width;
#pragma omp simd
    for (int64_t j = 0; j < width; j++) out[j] = store(load(xs[j]) + load(g[j]) * load(ys[j]));
  }
  return PG_OK;
}

/* Scratch: [gates, chunks, sums, width] partial sums of dout·y and of dy, those that are wanted. */
int64_t PG_CPU(gated_residual_backward_scratch)(const pg_call *call) {
  const gated_residual_backward_views v = gated_residual_backward_of(call);
  if (!summed_rows(&v) || v.dout->ndim != 3 || v.gate->ndim != 3) return 0;
  int64_t chunks = pg_pieces(rows_a_gate(v.gate, v.dout), PG_CHUNK_ROWS);
  return v.gate->shape[0] * chunks * summed_rows(&v) * v.dout->shape[2] * (int64_t)sizeof(stat);
}

static void add_row(stat *sum, const real *dout, const real *gate, int64_t width) {
#pragma omp simd
  for (int64_t j = 0; j < width; j++) sum[j] += load(dout[j]) * load(gate[j]);
}

/* Adds up `chunks` rows of sums, `pitch` apart. */
static void add_chunks(real *to, const stat *partial, int64_t chunks, int64_t pitch, int64_t width) {
  for (int64_t j = 0; j < width; j++) {
    stat sum = 0;
    for (int64_t c = 0; c < chunks; c++) sum += partial[c * pitch + j];
    to[j] = store(sum);
  }
}

static void backward_row(real *dy, stat *sum, const real *dout, const real *y, const real *gate, int64_t width) {
  if (sum) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
      stat d = load(dout[j]);
      sum[j] += d * load(y[j]);
      dy[j] = store(d * load(gate[j]));
    }
  } else {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) dy[j] = store(load(dout[j]) * load(gate[j]));
  }
}

pg_status PG_CPU(gated_residual_backward)(const pg_call *call) {
  const gated_residual_backward_views v = gated_residual_backward_of(call);
  pg_status status = expect_gated_residual_backward(call);
  if (status) return status;
  int64_t gates = v.gate->shape[0], rows = rows_a_gate(v.gate, v.dout), width = v.dout->shape[2],
          chunks = pg_pieces(rows, PG_CHUNK_ROWS);
  const int64_t sums = summed_rows(&v);
  stat *partial = sums ? call->scratch : NULL;
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t piece = 0; piece < gates * chunks; piece++) {
      int64_t g = piece / chunks, first = piece % chunks * PG_CHUNK_ROWS;
      int64_t last = first + PG_CHUNK_ROWS < rows ? first + PG_CHUNK_ROWS : rows;
      const real *gate = (const real *)v.gate->data + g * v.gate->stride[0];
      stat *sum = partial ? partial + piece * sums * width : NULL, *to_gate = pg_present(v.dgate) ? sum : NULL;
      if (sum) memset(sum, 0, (size_t)(sums * width) * sizeof *sum);
      for (int64_t r = g * rows + first; r < g * rows + last; r++) {
        const real *dout = (const real *)v.dout->data + r * width;
        if (pg_present(v.dbias)) add_row(sum + (sums - 1) * width, dout, gate, width);
        backward_row((real *)v.dy->data + r * width, to_gate, dout, (const real *)v.y->data + r * width, gate, width);
      }
    }
#pragma omp for schedule(static)
    for (int64_t g = 0; g < (pg_present(v.dgate) ? gates : 0); g++)
      add_chunks((real *)v.dgate->data + g * width, partial + g * chunks * sums * width, chunks, sums * width, width);
  }
  if (pg_present(v.dbias))
    add_chunks(v.dbias->data, partial + (sums - 1) * width, gates * chunks, sums * width, width);
  return PG_OK;
}
