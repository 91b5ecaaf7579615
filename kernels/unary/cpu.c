#include "cpu.h"

#include "cpu_loop.h"
#include "cpu_unit_stride.h"
#include "unary/half.h"
#include "unary/unary.h"
#include "unary/check.h"

typedef void (*unary_function)(void *y, const void *x, int64_t n, const unary_floats *f);

/* static void NAME(y, x, n, f): y[i] = EXPRESSION of x, with constants a and b of its type, made of CONSTANT's. */
#define UNARY_LOOP(NAME, TYPE, VALUE, CONSTANT, LOAD, STORE, EXPRESSION)                                               \
  static void NAME(void *y_, const void *x_, int64_t n, const unary_floats *f) {                                       \
    TYPE *y = y_;                                                                                                      \
    const TYPE *xs = x_;                                                                                               \
    const VALUE a = (VALUE)(CONSTANT)f->a, b = (VALUE)(CONSTANT)f->b;                                                  \
    (void)a, (void)b;                                                                                                  \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) {                                                              \
      const VALUE x = LOAD(xs[i]);                                                                                     \
      y[i] = STORE(EXPRESSION);                                                                                        \
    }                                                                                                                  \
  }

#define REAL_LOOP(NAME, EXPRESSION) UNARY_LOOP(real_##NAME, real, stat, stat, load, store, EXPRESSION)
#define REAL_ENTRY(NAME, EXPRESSION) [PG_UNARY_##NAME] = real_##NAME,
PG_UNARY(REAL_LOOP)
static const unary_function real_functions[PG_UNARY_FUNCTIONS] = {PG_UNARY(REAL_ENTRY)};

#if PG_REAL == 0
#define SAME(x) (x)
#define INTEGER_LOOP(NAME, TYPE, EXPRESSION) \
  UNARY_LOOP(NAME##_##TYPE, TYPE, TYPE, int64_t, SAME, (TYPE), (EXPRESSION))
#define INT32_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, int32_t, EXPRESSION)
#define INT64_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, int64_t, EXPRESSION)
#define UINT8_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, uint8_t, EXPRESSION)
#define INT32_ENTRY(NAME, EXPRESSION) [PG_UNARY_##NAME] = NAME##_int32_t,
#define INT64_ENTRY(NAME, EXPRESSION) [PG_UNARY_##NAME] = NAME##_int64_t,
#define UINT8_ENTRY(NAME, EXPRESSION) [PG_UNARY_##NAME] = NAME##_uint8_t,
#pragma GCC diagnostic ignored "-Wtype-limits" /* uint8 < 0 */
PG_UNARY_INTEGERS(INT32_LOOP)
PG_UNARY_INTEGERS(INT64_LOOP)
PG_UNARY_INTEGERS(UINT8_LOOP)
static const unary_function integer_functions[3][PG_UNARY_FUNCTIONS] = {
  {PG_UNARY_INTEGERS(INT32_ENTRY)}, {PG_UNARY_INTEGERS(INT64_ENTRY)}, {PG_UNARY_INTEGERS(UINT8_ENTRY)}};
#endif

typedef struct context {
  unary_function function;
  const unary_floats *f;
  int64_t bytes, stride;
} context;

static void row(const void *context_, char *const *operand, int64_t length) {
  const context *c = context_;
  if (c->stride == 1) {
    c->function(operand[0], operand[1], length, c->f);
    return;
  }
  uint64_t buffer[PG_UNIT_STRIDE_MOST];
  for (int64_t start = 0; start < length; start += PG_UNIT_STRIDE_MOST) {
    int64_t n = length - start < PG_UNIT_STRIDE_MOST ? length - start : PG_UNIT_STRIDE_MOST;
    const void *x = pg_unit_stride(buffer, operand[1], c->bytes, c->stride, start, n);
    c->function(operand[0] + start * c->bytes, x, n, c->f);
  }
}

pg_status PG_CPU(unary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_unary(call, &loop);
  if (status) return status;
  const int64_t which = unary_ints_of(call).operation;
  const unary_floats f = unary_floats_of(call);
  int dtype = unary_of(call).x->dtype;
  unary_function function = NULL;
  if (dtype == PG_REAL) function = real_functions[which];
#if PG_REAL == 0
  else function = integer_functions[dtype - PG_INT32][which];
#endif
  context c = {function, &f, loop.bytes[1], pg_loop_inner(&loop, 1)};
  pg_loop_run(&loop, row, &c);
  return PG_OK;
}
