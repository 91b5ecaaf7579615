#include "cpu.h"

#include "cpu_loop.h"
#include "cpu_unit_stride.h"
#include "where/check.h"
#include "where/where.h"

typedef struct context {
  int64_t bytes, stride[4];
} context;

#define SELECT_LOOP(TYPE)                                                                                              \
  {                                                                                                                    \
    TYPE *to = y;                                                                                                      \
    const TYPE *as = a, *bs = b;                                                                                       \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) to[i] = condition[i] ? as[i] : bs[i];                          \
  }

static void choose(void *y, const uint8_t *condition, const void *a, const void *b, int64_t bytes, int64_t n) {
  if (bytes == 1) SELECT_LOOP(uint8_t)
  else if (bytes == 2) SELECT_LOOP(uint16_t)
  else if (bytes == 4) SELECT_LOOP(uint32_t)
  else SELECT_LOOP(uint64_t)
}

static void row(const void *context_, char *const *operand, int64_t length) {
  const context *c = context_;
  uint8_t condition_buffer[PG_UNIT_STRIDE_MOST];
  uint64_t a_buffer[PG_UNIT_STRIDE_MOST], b_buffer[PG_UNIT_STRIDE_MOST];
  for (int64_t start = 0; start < length; start += PG_UNIT_STRIDE_MOST) {
    int64_t n = length - start < PG_UNIT_STRIDE_MOST ? length - start : PG_UNIT_STRIDE_MOST;
    const void *condition = pg_unit_stride(condition_buffer, operand[1], 1, c->stride[1], start, n);
    const void *a = pg_unit_stride(a_buffer, operand[2], c->bytes, c->stride[2], start, n);
    const void *b = pg_unit_stride(b_buffer, operand[3], c->bytes, c->stride[3], start, n);
    choose(operand[0] + start * c->bytes, condition, a, b, c->bytes, n);
  }
}

pg_status PG_CPU(where)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_where(call, &loop);
  if (status) return status;
  context c = {loop.bytes[0], {0}};
  for (int k = 0; k < 4; k++) c.stride[k] = pg_loop_inner(&loop, k);
  pg_loop_run(&loop, row, &c);
  return PG_OK;
}
