/* A row of a plane's windows after another. Windows that lie inside the image whole, with stride 1, are worked on
 * side by side; the others one by one. */
#include "cpu.h"
#include "pool/pool.h"
#include "pool/window.h"

enum { SIDE_BY_SIDE = 64 };

/* Windows [q, q + count) of row p, whole ones of stride 1: `from` is the first window's top left corner. */
static void pool_whole(real *y, const pooling *n, const real *from, int64_t rows, int64_t count) {
  stat sum[SIDE_BY_SIDE];
  for (int64_t q = 0; q < count; q++) sum[q] = n->mean ? 0 : load(from[q]);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < n->size; j++) {
      const real *x = from + i * n->width + j;
      if (n->mean) {
#pragma omp simd
        for (int64_t q = 0; q < count; q++) sum[q] += load(x[q]);
      } else {
#pragma omp simd
        for (int64_t q = 0; q < count; q++) sum[q] = is_larger(load(x[q]), sum[q]) ? load(x[q]) : sum[q];
      }
    }
  const stat divisor = n->mean ? (stat)(rows * n->size) : 1;
  for (int64_t q = 0; q < count; q++) y[q] = store(sum[q] / divisor);
}

static void pool_row(real *y, const pooling *n, const real *plane, int64_t p) {
  int64_t top, bottom;
  window_of(n, p, n->height, &top, &bottom);
  const int64_t last = n->width - n->size + n->padding; /* the last window that ends inside */
  for (int64_t q = 0; q < n->columns;) {
    if (n->stride > 1 || q < n->padding || q > last) {
      y[q] = store(pool_window(n, plane, p, q));
      q++;
      continue;
    }
    int64_t count = last + 1 - q;
    if (count > SIDE_BY_SIDE) count = SIDE_BY_SIDE;
    pool_whole(y + q, n, plane + top * n->width + q - n->padding, bottom - top, count);
    q += count;
  }
}

pg_status PG_CPU(pool)(const pg_call *call) {
  const pool_views v = pool_of(call);
  pooling n = {0};
  pg_status status = read_pooling(&n, "pool", call, v.x, v.y);
  if (status) return status;
  real *y = v.y->data;
  const real *x = v.x->data;
#pragma omp parallel for schedule(static) num_threads(pg_kernel_threads())
  for (int64_t k = 0; k < n.planes; k++)
    for (int64_t p = 0; p < n.rows; p++)
      pool_row(y + (k * n.rows + p) * n.columns, &n, x + k * n.height * n.width, p);
  return PG_OK;
}

pg_status PG_CPU(pool_backward)(const pg_call *call) {
  const pool_backward_views v = pool_backward_of(call);
  pooling n = {0};
  pg_status status = read_backward(&n, call);
  if (status) return status;
  real *dx = v.dx->data;
  const real *dy = v.dy->data, *x = v.x->data;
  const int64_t area = n.height * n.width;
#pragma omp parallel for schedule(static) num_threads(pg_kernel_threads())
  for (int64_t k = 0; k < n.planes; k++)
    for (int64_t at = 0; at < area; at++)
      dx[k * area + at] = store(pool_gradient(&n, dy + k * n.rows * n.columns, n.mean ? dy : x + k * area,
                                              at / n.width, at % n.width));
  return PG_OK;
}
