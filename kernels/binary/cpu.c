#include "cpu.h"

#include "binary/binary.h"
#include "binary/check.h"
#include "cpu_loop.h"
#include "gather.h"

typedef void (*binary_function)(void *y, const void *a, const void *b, int64_t n);

#if PG_REAL == 1
#define POWER pow
#else
#define POWER powf
#endif

/* static void NAME(y, a, b, n): y[i] = EXPRESSION of a and b. */
#define BINARY_LOOP(NAME, OUT, TYPE, VALUE, LOAD, STORE, EXPRESSION)                                                   \
  static void NAME(void *y_, const void *a_, const void *b_, int64_t n) {                                              \
    OUT *y = y_;                                                                                                       \
    const TYPE *as = a_, *bs = b_;                                                                                     \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) {                                                              \
      const VALUE a = LOAD(as[i]), b = LOAD(bs[i]);                                                                    \
      y[i] = STORE(EXPRESSION);                                                                                        \
    }                                                                                                                  \
  }
#define REAL_LOOP(NAME, EXPRESSION) BINARY_LOOP(NAME, real, real, stat, load, store, EXPRESSION)
#define TRUTH_LOOP(NAME, EXPRESSION) BINARY_LOOP(NAME, uint8_t, real, stat, load, (uint8_t), (EXPRESSION))

REAL_LOOP(add, a + b)
REAL_LOOP(subtract, a - b)
REAL_LOOP(multiply, a *b)
REAL_LOOP(divide, a / b)
REAL_LOOP(power, POWER(a, b))
REAL_LOOP(maximum, (a > b) | (a != a) ? a : b)
REAL_LOOP(minimum, (a < b) | (a != a) ? a : b)
TRUTH_LOOP(equal, a == b)
TRUTH_LOOP(not_equal, a != b)
TRUTH_LOOP(less, a < b)
TRUTH_LOOP(less_equal, a <= b)
TRUTH_LOOP(greater, a > b)
TRUTH_LOOP(greater_equal, a >= b)

static const binary_function real_functions[PG_BINARY_FUNCTIONS] = {
    [PG_BINARY_ADD] = add,
    [PG_BINARY_SUBTRACT] = subtract,
    [PG_BINARY_MULTIPLY] = multiply,
    [PG_BINARY_DIVIDE] = divide,
    [PG_BINARY_POW] = power,
    [PG_BINARY_MAXIMUM] = maximum,
    [PG_BINARY_MINIMUM] = minimum,
    [PG_BINARY_EQUAL] = equal,
    [PG_BINARY_NOT_EQUAL] = not_equal,
    [PG_BINARY_LESS] = less,
    [PG_BINARY_LESS_EQUAL] = less_equal,
    [PG_BINARY_GREATER] = greater,
    [PG_BINARY_GREATER_EQUAL] = greater_equal,
};

#if PG_REAL == 0
#define SAME(x) (x)
#define INTEGER_LOOP(NAME, TYPE, EXPRESSION) BINARY_LOOP(NAME, TYPE, TYPE, TYPE, SAME, (TYPE), (EXPRESSION))
#define INTEGER_TRUTH_LOOP(NAME, TYPE, EXPRESSION) BINARY_LOOP(NAME, uint8_t, TYPE, TYPE, SAME, (uint8_t), (EXPRESSION))
#define INTEGER_LOOPS(TYPE)                                                                                            \
  INTEGER_LOOP(add_##TYPE, TYPE, (uint64_t)a + (uint64_t)b)                                                            \
  INTEGER_LOOP(subtract_##TYPE, TYPE, (uint64_t)a - (uint64_t)b)                                                       \
  INTEGER_LOOP(multiply_##TYPE, TYPE, (uint64_t)a *(uint64_t)b)                                                        \
  INTEGER_LOOP(maximum_##TYPE, TYPE, a > b ? a : b)                                                                    \
  INTEGER_LOOP(minimum_##TYPE, TYPE, a < b ? a : b)                                                                    \
  INTEGER_TRUTH_LOOP(equal_##TYPE, TYPE, a == b)                                                                       \
  INTEGER_TRUTH_LOOP(not_equal_##TYPE, TYPE, a != b)                                                                   \
  INTEGER_TRUTH_LOOP(less_##TYPE, TYPE, a < b)                                                                         \
  INTEGER_TRUTH_LOOP(less_equal_##TYPE, TYPE, a <= b)                                                                  \
  INTEGER_TRUTH_LOOP(greater_##TYPE, TYPE, a > b)                                                                      \
  INTEGER_TRUTH_LOOP(greater_equal_##TYPE, TYPE, a >= b)
#define INTEGER_ROW(TYPE)                                                                                              \
  [PG_BINARY_ADD] = add_##TYPE, [PG_BINARY_SUBTRACT] = subtract_##TYPE, [PG_BINARY_MULTIPLY] = multiply_##TYPE,        \
  [PG_BINARY_MAXIMUM] = maximum_##TYPE, [PG_BINARY_MINIMUM] = minimum_##TYPE, [PG_BINARY_EQUAL] = equal_##TYPE,        \
  [PG_BINARY_NOT_EQUAL] = not_equal_##TYPE, [PG_BINARY_LESS] = less_##TYPE,                                            \
  [PG_BINARY_LESS_EQUAL] = less_equal_##TYPE, [PG_BINARY_GREATER] = greater_##TYPE,                                    \
  [PG_BINARY_GREATER_EQUAL] = greater_equal_##TYPE
INTEGER_LOOPS(int32_t)
INTEGER_LOOPS(int64_t)
INTEGER_LOOPS(uint8_t)
INTEGER_LOOP(and_uint8_t, uint8_t, (a != 0) & (b != 0))
INTEGER_LOOP(or_uint8_t, uint8_t, (a | b) != 0)
static const binary_function integer_functions[3][PG_BINARY_FUNCTIONS] = {
    {INTEGER_ROW(int32_t)},
    {INTEGER_ROW(int64_t)},
    {INTEGER_ROW(uint8_t), [PG_BINARY_AND] = and_uint8_t, [PG_BINARY_OR] = or_uint8_t},
};
#endif

typedef struct context {
  binary_function function;
  int64_t out_bytes, bytes, stride_a, stride_b;
} context;

static void row(const void *context_, char *const *operand, int64_t length) {
  const context *c = context_;
  if (c->stride_a == 1 && c->stride_b == 1) {
    c->function(operand[0], operand[1], operand[2], length);
    return;
  }
  uint64_t a_buffer[PG_GATHER], b_buffer[PG_GATHER];
  for (int64_t start = 0; start < length; start += PG_GATHER) {
    int64_t n = length - start < PG_GATHER ? length - start : PG_GATHER;
    const void *a = pg_gather(a_buffer, operand[1], c->bytes, c->stride_a, start, n);
    const void *b = pg_gather(b_buffer, operand[2], c->bytes, c->stride_b, start, n);
    c->function(operand[0] + start * c->out_bytes, a, b, n);
  }
}

pg_status PG_CPU(binary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_binary(call, &loop);
  if (status) return status;
  int dtype = call->v[1].dtype;
  binary_function function = NULL;
  if (dtype == PG_REAL) function = real_functions[call->i[0]];
#if PG_REAL == 0
  else function = integer_functions[dtype - PG_INT32][call->i[0]];
#endif
  context c = {function, loop.bytes[0], loop.bytes[1], pg_loop_inner(&loop, 1),
               pg_loop_inner(&loop, 2)};
  pg_loop_run(&loop, row, &c);
  return PG_OK;
}
