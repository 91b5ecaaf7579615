/* The pass over a product for what cuBLASLt's epilogues lack (epilogue.h). */
#include "cuda.h"

#include "activation/functions.h"
#include "matmul/epilogue.h"

enum { THREADS = 256 };

/* N elements of a row a thread. */
template <int N>
static __global__ void __launch_bounds__(THREADS) finish(matmul_epilogue e) {
  int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
  if (i >= e.rows * e.columns) return;
  stat x[N] = {}, bias[N], aux[N] = {};
  if (e.product) load_some<N>(x, static_cast<const real *>(e.product) + i);
  if (e.bias) {
    load_some<N>(bias, static_cast<const real *>(e.bias) + i % e.columns);
    for (int k = 0; k < N; k++) x[k] += bias[k];
  }
  if (e.pre) store_some<N>(static_cast<real *>(e.pre) + i, x);
  if (e.activation > ACTIVATION_DERIVATIVE) load_some<N>(aux, static_cast<const real *>(e.aux) + i);
  for (int k = 0; k < N; k++) x[k] = activate(x[k], aux[k], e.activation);
  store_some<N>(static_cast<real *>(e.out) + i, x);
}

pg_status PG_CUDA(matmul_epilogue)(const matmul_epilogue *e, void *stream) {
  bool vectors = true;
  const void *all[] = {e->out, e->pre, e->product, e->bias, e->aux};
  for (const void *data : all) vectors = vectors && pg_vectorisable(data, e->columns, e->columns);
  int64_t elements = (int64_t)THREADS * (vectors ? PG_VECTOR : 1);
  LAUNCH(vectors ? finish<PG_VECTOR> : finish<1>, pg_blocks(e->rows * e->columns, elements), THREADS, 0, stream, *e);
  return pg_launched("matmul");
}
