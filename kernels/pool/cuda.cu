#include "cuda_loop.h"

#include "pool/pool.h"
#include "pool/window.h"

/* A thread an element of y. */
static __global__ void __launch_bounds__(PG_EACH_THREADS) pool_windows(pooling n, real *y, const real *x) {
  const int64_t area = n.rows * n.columns;
  PG_GRID_STRIDE(unit, n.planes * area) {
    const int64_t plane = quotient(unit, area), at = unit - plane * area, p = quotient(at, n.columns);
    y[unit] = store(pool_window(&n, x + plane * n.height * n.width, p, at - p * n.columns));
  }
}

/* A thread an element of dx, which adds up its windows' parts in their order. */
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    gather_gradients(pooling n, real *dx, const real *dy, const real *x) {
  const int64_t area = n.height * n.width;
  PG_GRID_STRIDE(unit, n.planes * area) {
    const int64_t plane = quotient(unit, area), at = unit - plane * area, i = quotient(at, n.width);
    dx[unit] = store(pool_gradient(&n, dy + plane * n.rows * n.columns, n.mean ? dy : x + plane * area, i,
                                   at - i * n.width));
  }
}

pg_status PG_CUDA(pool)(const pg_call *call) {
  const pool_views v = pool_of(call);
  pooling n = {};
  pg_status status = read_pooling(&n, "pool", call, v.x, v.y);
  if (status) return status;
  LAUNCH(pool_windows, pg_stride_blocks(pg_numel(v.y), PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream, n,
         pg_data<real>(v.y), pg_data<real>(v.x));
  return pg_launched("pool");
}

pg_status PG_CUDA(pool_backward)(const pg_call *call) {
  const pool_backward_views v = pool_backward_of(call);
  pooling n = {};
  pg_status status = read_backward(&n, call);
  if (status) return status;
  LAUNCH(gather_gradients, pg_stride_blocks(pg_numel(v.dx), PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream, n,
         pg_data<real>(v.dx), pg_data<real>(v.dy), n.mean ? nullptr : pg_data<real>(v.x));
  return pg_launched("pool_backward");
}
