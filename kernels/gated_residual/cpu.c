#include "cpu.h"
#include "gated_residual/check.h"
#include "gated_residual/gated_residual.h"

static int64_t chunks_of(int64_t rows) { return (rows + PG_CHUNK_ROWS - 1) / PG_CHUNK_ROWS; }

pg_status PG_CPU(gated_residual)(const pg_call *call) {
  pg_status status = expect_gated_residual(call);
  if (status) return status;
  const pg_view *x = &call->v[1], *gate = &call->v[3];
  int64_t rows = x->shape[1], width = x->shape[2], gate_stride = gate->shape[0] == 1 ? 0 : gate->stride[0];
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < x->shape[0] * rows; r++) {
    const real *xs = (const real *)x->data + r * width, *ys = (const real *)call->v[2].data + r * width;
    const real *g = (const real *)gate->data + r / rows * gate_stride;
    real *out = (real *)call->v[0].data + r * width;
#pragma omp simd
    for (int64_t j = 0; j < width; j++) out[j] = store(load(xs[j]) + load(g[j]) * load(ys[j]));
  }
  return PG_OK;
}

/* Scratch: [gates, chunks, width] partial sums of dout·y. */
int64_t PG_CPU(gated_residual_backward_scratch)(const pg_call *call) {
  const pg_view *x = &call->v[2], *gate = &call->v[4];
  if (!pg_present(call, 1) || x->ndim != 3 || gate->ndim != 3) return 0;
  return gate->shape[0] * chunks_of(rows_a_gate(gate, x)) * x->shape[2] * (int64_t)sizeof(stat);
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
  pg_status status = expect_gated_residual_backward(call);
  if (status) return status;
  const pg_view *dout = &call->v[2], *y = &call->v[3], *gate = &call->v[4];
  int64_t gates = gate->shape[0], rows = rows_a_gate(gate, dout), width = dout->shape[2], chunks = chunks_of(rows);
  stat *partial = pg_present(call, 1) ? call->scratch : NULL;
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t piece = 0; piece < gates * chunks; piece++) {
      int64_t g = piece / chunks, first = piece % chunks * PG_CHUNK_ROWS;
      int64_t last = first + PG_CHUNK_ROWS < rows ? first + PG_CHUNK_ROWS : rows;
      stat *sum = partial ? partial + piece * width : NULL;
      if (sum) memset(sum, 0, (size_t)width * sizeof *sum);
      for (int64_t r = g * rows + first; r < g * rows + last; r++)
        backward_row((real *)call->v[0].data + r * width, sum, (const real *)dout->data + r * width,
                     (const real *)y->data + r * width, (const real *)gate->data + g * gate->stride[0], width);
    }
#pragma omp for schedule(static)
    for (int64_t g = 0; g < (partial ? gates : 0); g++)
      for (int64_t j = 0; j < width; j++) {
        stat sum = 0;
        for (int64_t c = 0; c < chunks; c++) sum += partial[(g * chunks + c) * width + j];
        ((real *)call->v[1].data)[g * width + j] = store(sum);
      }
  }
  return PG_OK;
}
