/* Shared by attention and its alignment: one head of a packed qkv tensor, a thread's workspace, a block of logits. */
#ifndef PERIGEE_ATTENTION_CPU_HEAD_H
#define PERIGEE_ATTENTION_CPU_HEAD_H

#include "attention/check.h"
#include "attention/cpu_tiles.h"

enum { QUERY_ROWS = 64 }; /* query rows in a block */

/* One (image, head) of qkv [B,N,3,H,d]: rows of `size` elements, `stride` apart. */
typedef struct head {
  const real *queries, *keys, *values;
  int64_t tokens, size, stride;
} head;

/* The head `h` of `image`, without its first `skip` tokens. */
static head head_of(const pg_view *qkv, int64_t image, int64_t h, int64_t skip) {
  packed p = packed_sizes(qkv);
  int64_t stride = 3 * p.heads * p.size;
  const real *first = (const real *)qkv->data + (image * p.tokens + skip) * stride + h * p.size;
  return (head){first, first + p.heads * p.size, first + 2 * p.heads * p.size, p.tokens - skip, p.size, stride};
}

/* ---- workspace ---- */

typedef struct bump {
  char *base; /* NULL: only count */
  int64_t used;
} bump;

static stat *take(bump *b, int64_t elements) {
  stat *at = b->base ? (stat *)(void *)(b->base + b->used) : NULL;
  b->used += pg_round_up(elements * (int64_t)sizeof(stat), 64);
  return at;
}

/* Threads that a kernel of `pieces` independent pieces uses. */
static int worker_count(int64_t pieces) {
  int threads = pg_kernel_threads();
  return pieces < threads ? (int)pieces : threads;
}

static pg_status check_scratch(const char *name, const pg_call *call, int64_t needed) {
  PG_EXPECT(call->scratch_bytes >= needed, "%s: %lld bytes of scratch; %lld are needed", name,
            (long long)call->scratch_bytes, (long long)needed);
  return PG_OK;
}

/* ---- rows and blocks ---- */

static inline int64_t block_rows(int64_t first, int64_t tokens) {
  return tokens - first < QUERY_ROWS ? tokens - first : QUERY_ROWS;
}

/* Logits of a block: logits [rows,tokens] = scale·Q·Kᵀ. queries [QUERY_ROWS,size] receives scale·Q. */
static void block_logits(stat *logits, int64_t logits_row, stat *queries, const stat *keys_t, head x, int64_t first,
                         stat scale) {
  int64_t rows = block_rows(first, x.tokens);
  copy_rows(queries, x.queries + first * x.stride, x.stride, rows, x.size, scale);
  product(rows, x.tokens, x.size, queries, x.size, keys_t, logits, logits_row, 0);
}

/* e^x for the x of a softmax, which rounding alone can make positive; 0 below -87, where results become subnormal. */
#if PG_REAL == 1
static inline double softmax_exp(double x) { return exp(x); }
#else
static inline float softmax_exp(float x) {
  float shifted; /* its low bits: n + 127, the exponent of 2^n */
  float p = pg_exp_of_rest(x, 127.0f, &shifted);
  return x < -87.0f ? 0.0f : p * pg_bits_float(pg_float_bits(shifted) << 23);
}
#endif

static stat row_max(const stat *row, int64_t n) {
  stat largest = row[0];
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < n; j++) largest = row[j] > largest ? row[j] : largest;
  return largest;
}

/* row = exp(row − largest); returns the sum. */
static stat row_exp(stat *row, int64_t n, stat largest) {
  stat sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) {
    row[j] = softmax_exp(row[j] - largest);
    sum += row[j];
  }
  return sum;
}

#endif
