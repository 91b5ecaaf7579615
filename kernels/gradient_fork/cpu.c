#include "cpu.h"
#include "gradient_fork/check.h"
#include "gradient_fork/gradient_fork.h"

/* A sample is cut into pieces of this many elements, from the shape alone. */
enum { PIECE = 4096 };

typedef struct products {
  stat ab, aa, bb;
} products;


/* Scratch: products [B, pieces]. */
int64_t PG_CPU(gradient_fork_scratch)(const pg_call *call) {
  const gradient_fork_views v = gradient_fork_of(call);
  int64_t samples = v.a->ndim ? v.a->shape[0] : 0;
  return samples ? samples * pg_pieces(pg_numel(v.a) / samples, PIECE) * (int64_t)sizeof(products) : 0;
}

static products add_piece(real *sum, const real *a, const real *b, int64_t n) {
  stat ab = 0, aa = 0, bb = 0;
#pragma omp simd reduction(+ : ab, aa, bb)
  for (int64_t j = 0; j < n; j++) {
    stat x = load(a[j]), y = load(b[j]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
    sum[j] = store(x + y);
  }
  return (products){ab, aa, bb};
}

pg_status PG_CPU(gradient_fork)(const pg_call *call) {
  const gradient_fork_views v = gradient_fork_of(call);
  pg_status status = expect_gradient_fork(call);
  if (status) return status;
  int64_t samples = v.a->shape[0], n = samples ? pg_numel(v.a) / samples : 0, pieces = pg_pieces(n, PIECE);
  products *partial = call->scratch;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < samples * pieces; k++) {
    int64_t from = k % pieces * PIECE, length = n - from < PIECE ? n - from : PIECE, at = k / pieces * n + from;
    const real *x = (const real *)v.a->data + at, *y = (const real *)v.b->data + at;
    partial[k] = add_piece((real *)v.sum->data + at, x, y, length);
  }
  for (int64_t s = 0; s < samples; s++) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t k = s * pieces; k < (s + 1) * pieces; k++) {
      ab += (double)partial[k].ab;
      aa += (double)partial[k].aa;
      bb += (double)partial[k].bb;
    }
    stat *out = (stat *)v.products->data + 3 * s;
    out[0] = (stat)ab, out[1] = (stat)aa, out[2] = (stat)bb;
  }
  return PG_OK;
}
