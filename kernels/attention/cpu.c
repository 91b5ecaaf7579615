#include "cpu.h"

#include <omp.h>

#include "attention/attention.h"
#include "attention/cpu_backward.h"

/* ---- forward ---- */

/* A thread's workspace; names as in cpu_backward.h. */
typedef struct forward_work {
  int64_t logits_row, size_row;
  stat *keys_t;  /* panels of Kᵀ [d,N] */
  stat *values;  /* panels of V [N,d] */
  stat *queries; /* scale·Q [R,d] */
  stat *logits;  /* [R,N] */
  stat *out;     /* [R,d] */
} forward_work;

static void forward_work_take(forward_work *w, bump *b, packed p) {
  w->logits_row = row_stride(p.tokens);
  w->size_row = pg_round_up(p.size, PANEL);
  w->keys_t = take(b, panels_size(p.size, p.tokens));
  w->values = take(b, panels_size(p.tokens, p.size));
  w->queries = take(b, QUERY_ROWS * p.size);
  w->logits = take(b, QUERY_ROWS * w->logits_row);
  w->out = take(b, QUERY_ROWS * w->size_row);
}

static int64_t forward_bytes(packed p) {
  bump count = {NULL, 0};
  forward_work w;
  forward_work_take(&w, &count, p);
  return count.used;
}

/* Softmax of a block's rows, not yet divided: logits = exp(s − max); inverse_i = 1/sum, lse_i = max + ln(sum). */
static void block_softmax(stat *logits, int64_t logits_row, int64_t rows, int64_t tokens, stat *inverse, stat *lse) {
  for (int64_t i = 0; i < rows; i++) {
    stat largest = row_max(logits + i * logits_row, tokens);
    stat sum = row_exp(logits + i * logits_row, tokens, largest);
    inverse[i] = 1 / sum;
    lse[i] = largest + pg_log(sum);
  }
}

/* out: this head's rows, out_row apart; saved [N]: its lse, or NULL. */
static void forward_head(const forward_work *w, head x, stat scale, real *out, int64_t out_row, stat *saved) {
  pack_panels_transposed(w->keys_t, x.keys, x.stride, x.tokens, x.size);
  pack_panels(w->values, x.values, x.stride, x.tokens, x.size);
  for (int64_t first = 0; first < x.tokens; first += QUERY_ROWS) {
    int64_t rows = block_rows(first, x.tokens);
    stat inverse[QUERY_ROWS], lse[QUERY_ROWS];
    block_logits(w->logits, w->logits_row, w->queries, w->keys_t, x, first, scale);
    block_softmax(w->logits, w->logits_row, rows, x.tokens, inverse, lse);
    if (saved) memcpy(saved + first, lse, (size_t)rows * sizeof *saved);
    product(rows, x.size, x.tokens, w->logits, w->logits_row, w->values, w->out, w->size_row, 0);
    for (int64_t i = 0; i < rows; i++)
      store_rows(out + (first + i) * out_row, 0, w->out + i * w->size_row, 0, 1, x.size, inverse[i]);
  }
}

int64_t PG_CPU(attention_scratch)(const pg_call *call) {
  const attention_views v = attention_of(call);
  if (!is_packed(v.qkv)) return 0; /* the call itself says what is wrong */
  packed p = packed_sizes(v.qkv);
  return worker_count(p.images * p.heads) * forward_bytes(p);
}

pg_status PG_CPU(attention)(const pg_call *call) {
  const attention_views v = attention_of(call);
  pg_status status = expect_attention(call);
  if (status) return status;
  packed p = packed_sizes(v.qkv);
  const stat scale = (stat)attention_floats_of(call).scale;
  int64_t pieces = p.images * p.heads, bytes = forward_bytes(p);
  status = check_scratch("attention", call, worker_count(pieces) * bytes);
  if (status) return status;
#pragma omp parallel for schedule(static) num_threads(worker_count(pieces))
  for (int64_t piece = 0; piece < pieces; piece++) {
    int64_t image = piece / p.heads, h = piece % p.heads;
    bump scratch = {(char *)call->scratch + omp_get_thread_num() * bytes, 0};
    forward_work w;
    forward_work_take(&w, &scratch, p);
    forward_head(&w, head_of(v.qkv, image, h, 0), scale,
                 (real *)v.out->data + (image * p.tokens * p.heads + h) * p.size, p.heads * p.size,
                 pg_present(v.lse) ? (stat *)v.lse->data + piece * p.tokens : NULL);
  }
  return PG_OK;
}

/* ---- backward ---- */

static int64_t backward_bytes(packed p) {
  bump count = {NULL, 0};
  backward_work w;
  backward_work_take(&w, &count, p.tokens, p.size);
  return count.used;
}

int64_t PG_CPU(attention_backward_scratch)(const pg_call *call) {
  const attention_backward_views v = attention_backward_of(call);
  if (!is_packed(v.qkv)) return 0;
  packed p = packed_sizes(v.qkv);
  return worker_count(p.images * p.heads) * backward_bytes(p);
}

pg_status PG_CPU(attention_backward)(const pg_call *call) {
  const attention_backward_views v = attention_backward_of(call);
  pg_status status = expect_attention_backward(call);
  if (status) return status;
  packed p = packed_sizes(v.qkv);
  const double scale = attention_backward_floats_of(call).scale;
  int64_t pieces = p.images * p.heads, bytes = backward_bytes(p);
  status = check_scratch("attention_backward", call, worker_count(pieces) * bytes);
  if (status) return status;
#pragma omp parallel for schedule(static) num_threads(worker_count(pieces))
  for (int64_t piece = 0; piece < pieces; piece++) {
    bump scratch = {(char *)call->scratch + omp_get_thread_num() * bytes, 0};
    backward_work w;
    backward_work_take(&w, &scratch, p.tokens, p.size);
    backward_case c =
        backward_case_of(v.dqkv, v.dout, v.qkv, v.out, v.lse, piece / p.heads, piece % p.heads, scale);
    backward_head(&w, &c);
  }
  return PG_OK;
}
