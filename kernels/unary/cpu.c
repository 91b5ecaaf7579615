#include "cpu.h"

#include "cpu_loop.h"
#include "gather.h"
#include "unary/unary.h"
#include "unary/check.h"

typedef void (*unary_function)(void *y, const void *x, int64_t n, const double *f);

#if PG_REAL == 1
#define FLOOR floor
#define ROUND rint
#define SINE sin
#define COSINE cos
#define ARCTANGENT atan
#define POWER pow
#define SQUARE_ROOT sqrt
#define ABSOLUTE fabs
#else
#define FLOOR floorf
#define ROUND rintf
#define SINE sinf
#define COSINE cosf
#define ARCTANGENT atanf
#define POWER powf
#define SQUARE_ROOT sqrtf
#define ABSOLUTE fabsf
#endif

#define LIMITED(x, low, high) ((x) < (low) ? (low) : (x) > (high) ? (high) : (x))

/* static void NAME(y, x, n, f): y[i] = EXPRESSION of x, with constants a and b. */
#define UNARY_LOOP(NAME, TYPE, VALUE, LOAD, STORE, EXPRESSION)                                                         \
  static void NAME(void *y_, const void *x_, int64_t n, const double *f) {                                             \
    TYPE *y = y_;                                                                                                      \
    const TYPE *xs = x_;                                                                                               \
    const VALUE a = (VALUE)f[0], b = (VALUE)f[1];                                                                      \
    (void)a, (void)b;                                                                                                  \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) {                                                              \
      const VALUE x = LOAD(xs[i]);                                                                                     \
      y[i] = STORE(EXPRESSION);                                                                                        \
    }                                                                                                                  \
  }
#define REAL_LOOP(NAME, EXPRESSION) UNARY_LOOP(NAME, real, stat, load, store, EXPRESSION)

REAL_LOOP(negative, -x)
REAL_LOOP(absolute, ABSOLUTE(x))
REAL_LOOP(exponential, pg_exp(x))
REAL_LOOP(logarithm, pg_log(x))
REAL_LOOP(square_root, SQUARE_ROOT(x))
REAL_LOOP(reciprocal_square_root, 1 / SQUARE_ROOT(x))
REAL_LOOP(square, x *x)
REAL_LOOP(sine, SINE(x))
REAL_LOOP(cosine, COSINE(x))
REAL_LOOP(hyperbolic_tangent, pg_tanh(x))
REAL_LOOP(sigmoid, pg_sigmoid(x))
REAL_LOOP(relu, x < 0 ? 0 : x)
REAL_LOOP(error_function, pg_erf(x))
REAL_LOOP(floor_of, FLOOR(x))
REAL_LOOP(round_of, ROUND(x))
REAL_LOOP(sign, x > 0 ? 1 : x < 0 ? -1 : x)
REAL_LOOP(reciprocal, 1 / x)
REAL_LOOP(affine, a *x + b)
REAL_LOOP(clamp, LIMITED(x, a, b))
REAL_LOOP(power, POWER(x, a))
REAL_LOOP(arctangent, ARCTANGENT(x))

static const unary_function real_functions[PG_UNARY_FUNCTIONS] = {
    [PG_UNARY_NEGATIVE] = negative,
    [PG_UNARY_ABSOLUTE] = absolute,
    [PG_UNARY_EXP] = exponential,
    [PG_UNARY_LOG] = logarithm,
    [PG_UNARY_SQRT] = square_root,
    [PG_UNARY_RSQRT] = reciprocal_square_root,
    [PG_UNARY_SQUARE] = square,
    [PG_UNARY_SIN] = sine,
    [PG_UNARY_COS] = cosine,
    [PG_UNARY_TANH] = hyperbolic_tangent,
    [PG_UNARY_SIGMOID] = sigmoid,
    [PG_UNARY_RELU] = relu,
    [PG_UNARY_ERF] = error_function,
    [PG_UNARY_FLOOR] = floor_of,
    [PG_UNARY_ROUND] = round_of,
    [PG_UNARY_SIGN] = sign,
    [PG_UNARY_RECIPROCAL] = reciprocal,
    [PG_UNARY_AFFINE] = affine,
    [PG_UNARY_CLAMP] = clamp,
    [PG_UNARY_POW] = power,
    [PG_UNARY_ATAN] = arctangent,
};

#if PG_REAL == 0
#define SAME(x) (x)
/* Products and sums in unsigned arithmetic, which wraps around. */
#define INTEGER_LOOPS(TYPE)                                                                                            \
  UNARY_LOOP(negative_##TYPE, TYPE, TYPE, SAME, (TYPE), (0 - (uint64_t)x))                                             \
  UNARY_LOOP(absolute_##TYPE, TYPE, TYPE, SAME, (TYPE), (x < 0 ? 0 - (uint64_t)x : (uint64_t)x))                       \
  UNARY_LOOP(square_##TYPE, TYPE, TYPE, SAME, (TYPE), ((uint64_t)x * (uint64_t)x))                                     \
  UNARY_LOOP(sign_##TYPE, TYPE, TYPE, SAME, (TYPE), ((x > 0) - (x < 0)))                                               \
  UNARY_LOOP(affine_##TYPE, TYPE, TYPE, SAME, (TYPE),                                                                  \
             ((uint64_t)(int64_t)f[0] * (uint64_t)x + (uint64_t)(int64_t)f[1]))                                        \
  UNARY_LOOP(clamp_##TYPE, TYPE, TYPE, SAME, (TYPE), LIMITED(x, a, b))
#define INTEGER_ROW(TYPE)                                                                                              \
  {                                                                                                                    \
    [PG_UNARY_NEGATIVE] = negative_##TYPE, [PG_UNARY_ABSOLUTE] = absolute_##TYPE, [PG_UNARY_SQUARE] = square_##TYPE,   \
    [PG_UNARY_SIGN] = sign_##TYPE, [PG_UNARY_AFFINE] = affine_##TYPE, [PG_UNARY_CLAMP] = clamp_##TYPE                  \
  }
#pragma GCC diagnostic ignored "-Wtype-limits" /* uint8 < 0 */
INTEGER_LOOPS(int32_t)
INTEGER_LOOPS(int64_t)
INTEGER_LOOPS(uint8_t)
static const unary_function integer_functions[3][PG_UNARY_FUNCTIONS] = {INTEGER_ROW(int32_t), INTEGER_ROW(int64_t),
                                                                        INTEGER_ROW(uint8_t)};
#endif

typedef struct context {
  unary_function function;
  const double *f;
  int64_t bytes, stride;
} context;

static void row(const void *context_, char *const *operand, int64_t length) {
  const context *c = context_;
  if (c->stride == 1) {
    c->function(operand[0], operand[1], length, c->f);
    return;
  }
  uint64_t buffer[PG_GATHER];
  for (int64_t start = 0; start < length; start += PG_GATHER) {
    int64_t n = length - start < PG_GATHER ? length - start : PG_GATHER;
    const void *x = pg_gather(buffer, operand[1], c->bytes, c->stride, start, n);
    c->function(operand[0] + start * c->bytes, x, n, c->f);
  }
}

pg_status PG_CPU(unary)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_unary(call, &loop);
  if (status) return status;
  int dtype = call->v[1].dtype;
  unary_function function = NULL;
  if (dtype == PG_REAL) function = real_functions[call->i[0]];
#if PG_REAL == 0
  else function = integer_functions[dtype - PG_INT32][call->i[0]];
#endif
  context c = {function, call->f, loop.bytes[1], pg_loop_inner(&loop, 1)};
  pg_loop_run(&loop, row, &c);
  return PG_OK;
}
