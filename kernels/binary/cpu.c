#include "cpu.h"

#include "binary/binary.h"
#include "binary/check.h"
#include "binary/functions.h"
#include "cpu_loop.h"
#include "cpu_unit_stride.h"

typedef void (*binary_function)(void *y, const void *a, const void *b, int64_t n);

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
#define REAL_LOOP(NAME, EXPRESSION) BINARY_LOOP(real_##NAME, real, real, stat, load, store, EXPRESSION)
#define REAL_TRUTH_LOOP(NAME, EXPRESSION) \
  BINARY_LOOP(real_##NAME, uint8_t, real, stat, load, (uint8_t), (EXPRESSION))
#define REAL_ENTRY(NAME, EXPRESSION) [PG_BINARY_##NAME] = real_##NAME,
PG_BINARY_ARITHMETIC(REAL_LOOP)
PG_BINARY_COMPARISONS(REAL_TRUTH_LOOP)
static const binary_function real_functions[PG_BINARY_FUNCTIONS] = {
  PG_BINARY_ARITHMETIC(REAL_ENTRY) PG_BINARY_COMPARISONS(REAL_ENTRY)};

#if PG_REAL == 0
#define SAME(x) (x)
#define INTEGER_LOOP(NAME, OUT, TYPE, EXPRESSION) \
  BINARY_LOOP(NAME##_##TYPE, OUT, TYPE, TYPE, SAME, (OUT), (EXPRESSION))
#define INT32_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, int32_t, int32_t, EXPRESSION)
#define INT64_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, int64_t, int64_t, EXPRESSION)
#define UINT8_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, uint8_t, uint8_t, EXPRESSION)
#define INT32_TRUTH_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, uint8_t, int32_t, EXPRESSION)
#define INT64_TRUTH_LOOP(NAME, EXPRESSION) INTEGER_LOOP(NAME, uint8_t, int64_t, EXPRESSION)
#define INT32_ENTRY(NAME, EXPRESSION) [PG_BINARY_##NAME] = NAME##_int32_t,
#define INT64_ENTRY(NAME, EXPRESSION) [PG_BINARY_##NAME] = NAME##_int64_t,
#define UINT8_ENTRY(NAME, EXPRESSION) [PG_BINARY_##NAME] = NAME##_uint8_t,
PG_BINARY_INTEGERS(INT32_LOOP)
PG_BINARY_INTEGERS(INT64_LOOP)
PG_BINARY_INTEGERS(UINT8_LOOP)
PG_BINARY_COMPARISONS(INT32_TRUTH_LOOP)
PG_BINARY_COMPARISONS(INT64_TRUTH_LOOP)
PG_BINARY_COMPARISONS(UINT8_LOOP)
PG_BINARY_LOGICAL(UINT8_LOOP)
static const binary_function integer_functions[3][PG_BINARY_FUNCTIONS] = {
  {PG_BINARY_INTEGERS(INT32_ENTRY) PG_BINARY_COMPARISONS(INT32_ENTRY)},
  {PG_BINARY_INTEGERS(INT64_ENTRY) PG_BINARY_COMPARISONS(INT64_ENTRY)},
  {PG_BINARY_INTEGERS(UINT8_ENTRY) PG_BINARY_COMPARISONS(UINT8_ENTRY) PG_BINARY_LOGICAL(UINT8_ENTRY)},
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
  uint64_t a_buffer[PG_UNIT_STRIDE_MOST], b_buffer[PG_UNIT_STRIDE_MOST];
  for (int64_t start = 0; start < length; start += PG_UNIT_STRIDE_MOST) {
    int64_t n = length - start < PG_UNIT_STRIDE_MOST ? length - start : PG_UNIT_STRIDE_MOST;
    const void *a = pg_unit_stride(a_buffer, operand[1], c->bytes, c->stride_a, start, n);
    const void *b = pg_unit_stride(b_buffer, operand[2], c->bytes, c->stride_b, start, n);
    c->function(operand[0] + start * c->out_bytes, a, b, n);
  }
}

pg_status PG_CPU(binary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_binary(call, &loop);
  if (status) return status;
  const int64_t which = binary_ints_of(call).operation;
  int dtype = binary_of(call).a->dtype;
  binary_function function = NULL;
  if (dtype == PG_REAL) function = real_functions[which];
#if PG_REAL == 0
  else function = integer_functions[dtype - PG_INT32][which];
#endif
  context c = {function, loop.bytes[0], loop.bytes[1], pg_loop_inner(&loop, 1),
               pg_loop_inner(&loop, 2)};
  pg_loop_run(&loop, row, &c);
  return PG_OK;
}
