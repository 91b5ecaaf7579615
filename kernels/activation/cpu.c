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
  const activation_views v = activation_of(call);
  pg_status status = expect_activation(call);
  if (status) return status;
  real *y = v.y->data;
  const real *x = v.x->data;
  int64_t n = pg_numel(v.y);
  switch (activation_ints_of(call).kind) {
#define CASE(function) \
  case ACTIVATION_##function: EACH(y[p] = store(function(load(x[p])))); break;
    PG_ACTIVATIONS(CASE)
#undef CASE
  }
  return PG_OK;
}

pg_status PG_CPU(activation_backward)(const pg_call *call) {
  const activation_backward_views v = activation_backward_of(call);
  pg_status status = expect_activation_backward(call);
  if (status) return status;
  real *dx = v.dx->data;
  const real *dy = v.dy->data, *x = v.x->data;
  int64_t n = pg_numel(v.dx);
  switch (activation_backward_ints_of(call).kind) {
#define CASE(function) \
  case ACTIVATION_##function: EACH(dx[p] = store(load(dy[p]) * function##_derivative(load(x[p])))); break;
    PG_ACTIVATIONS(CASE)
#undef CASE
  }
  return PG_OK;
}
