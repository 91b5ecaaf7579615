/* The pass over a product for what cuBLASLt's epilogues lack (epilogue.h). */
#include "cuda.h"

#include "activation/functions.h"
#include "matmul/epilogue.h"

/* One thread an element; out or pre may be where the product lies. */
static __global__ void finish(real *out, real *pre, const real *product, const real *bias, const real *aux, int64_t count,
                              int64_t columns, int activation) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  stat x = product ? load(product[i]) : 0.0f;
  if (bias) x += load(bias[i % columns]);
  if (pre) pre[i] = store(x);
  out[i] = store(activate(x, activation > ACTIVATION_DERIVATIVE ? load(aux[i]) : 0.0f, activation));
}

pg_status PG_CUDA(matmul_epilogue)(const matmul_epilogue *e, void *stream) {
  enum { THREADS = 256 };
  int64_t count = e->rows * e->columns;
  LAUNCH(finish, pg_blocks(count, THREADS), THREADS, 0, stream, static_cast<real *>(e->out), static_cast<real *>(e->pre),
         static_cast<const real *>(e->product), static_cast<const real *>(e->bias), static_cast<const real *>(e->aux), count,
         e->columns, e->activation);
  return pg_launched("matmul");
}
