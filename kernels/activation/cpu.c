/* Activations on the CPU: one pass, split into equal pieces. */
#include "cpu.h"

#include "activation/activation.h"
#include "activation/check.h"
#include "activation/functions.h"

enum { PIECE = 4096, PARALLEL = 32768 };

/* Runs `statement` for every index p of [0, n), in pieces that vectorise. */
#define EACH(statement)                                                                                                \
  do {                                                                                                                 \
    _Pragma("omp parallel for schedule(static) if (n > PARALLEL)") for (int64_t start = 0; start < n;                  \
                                                                        start += PIECE) {                              \
      int64_t end = start + PIECE < n ? start + PIECE : n;                                                             \
      _Pragma("omp simd") for (int64_t p = start; p < end; p++) statement;                                             \
    }                                                                                                                  \
  } while (0)

pg_status PG_CPU(activation)(const pg_call *call) {
  pg_status status = expect_activation("activation", call, 2);
  if (status) return status;
  real *y = call->v[0].data;
  const real *x = call->v[1].data;
  int64_t n = pg_numel(&call->v[0]);
  switch (call->i[0]) {
#define CASE(function) \
  case ACTIVATION_##function: EACH(y[p] = store(function(load(x[p])))); break;
    PG_ACTIVATIONS(CASE)
#undef CASE
  }
  return PG_OK;
}

pg_status PG_CPU(activation_backward)(const pg_call *call) {
  pg_status status = expect_activation("activation_backward", call, 3);
  if (status) return status;
  real *dx = call->v[0].data;
  const real *dy = call->v[1].data, *x = call->v[2].data;
  int64_t n = pg_numel(&call->v[0]);
  switch (call->i[0]) {
#define CASE(function) \
  case ACTIVATION_##function: EACH(dx[p] = store(load(dy[p]) * function##_derivative(load(x[p])))); break;
    PG_ACTIVATIONS(CASE)
#undef CASE
  }
  return PG_OK;
}
