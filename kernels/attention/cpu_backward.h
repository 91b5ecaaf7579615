/* The backward of one head, in steps that attention_backward and the kernels of attention_alignment share. */
#ifndef PERIGEE_ATTENTION_CPU_BACKWARD_H
#define PERIGEE_ATTENTION_CPU_BACKWARD_H

#include "attention/cpu_head.h"

/* A thread's workspace. N: tokens, d: head size, R: QUERY_ROWS; "panels" as in cpu_tiles.h. */
typedef struct backward_work {
  int64_t logits_row;    /* row stride of logits and dlogits */
  int64_t size_row;      /* row stride of dqueries, dkeys, dvalues */
  stat *keys_t;          /* panels of Kᵀ [d,N] */
  stat *keys;            /* panels of K [N,d] */
  stat *values_t;        /* panels of Vᵀ [d,N] */
  stat *rows;            /* [R,d] the block's scale·Q, then its dO */
  stat *panels;          /* panels of the block's dO, then of its Q [R,d] */
  stat *logits;          /* [R,N] S, then P */
  stat *dlogits;         /* [R,N] dP, then dS */
  stat *dqueries;        /* [R,d] */
  stat *dkeys, *dvalues; /* [N,d] */
} backward_work;

static void backward_work_take(backward_work *w, bump *b, int64_t tokens, int64_t size) {
  w->logits_row = row_stride(tokens);
  w->size_row = pg_round_up(size, PANEL);
  w->keys_t = take(b, panels_size(size, tokens));
  w->keys = take(b, panels_size(tokens, size));
  w->values_t = take(b, panels_size(size, tokens));
  w->rows = take(b, QUERY_ROWS * size);
  w->panels = take(b, panels_size(QUERY_ROWS, size));
  w->logits = take(b, QUERY_ROWS * w->logits_row);
  w->dlogits = take(b, QUERY_ROWS * w->logits_row);
  w->dqueries = take(b, QUERY_ROWS * w->size_row);
  w->dkeys = take(b, tokens * w->size_row);
  w->dvalues = take(b, tokens * w->size_row);
}

/* to [rows,columns] = factor·from */
static void store_rows(real *to, int64_t to_row, const stat *from, int64_t from_row, int64_t rows, int64_t columns,
                       stat factor) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < columns; k++) to[i * to_row + k] = store(factor * from[i * from_row + k]);
}

/* delta_i = sum(dO_i∘O_i) */
static void block_delta(stat *delta, const real *dout, const real *out, int64_t stride, int64_t rows, int64_t size) {
  for (int64_t i = 0; i < rows; i++) {
    stat sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < size; k++) sum += load(dout[i * stride + k]) * load(out[i * stride + k]);
    delta[i] = sum;
  }
}

/* p = exp(s − lse), ds = p·(dp − delta): logits s -> p, dlogits dp -> ds. */
static void row_backward(stat *logits, stat *dlogits, int64_t n, stat lse, stat delta) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    stat p = softmax_exp(logits[j] - lse);
    logits[j] = p;
    dlogits[j] = p * (dlogits[j] - delta);
  }
}

/* ---- one head ---- */

/* One (image, head) of a backward call. */
typedef struct backward_case {
  head x;
  real *dqueries, *dkeys, *dvalues; /* rows of x.size elements, x.stride apart */
  const real *dout, *out;           /* rows of x.size elements, out_row apart */
  int64_t out_row;
  const stat *lse; /* [N] */
  stat scale;
} backward_case;

static backward_case backward_case_of(const pg_view *dqkv, const pg_view *dout, const pg_view *qkv, const pg_view *out,
                                      const pg_view *lse, int64_t image, int64_t h, double scale) {
  packed p = packed_sizes(qkv);
  head x = head_of(qkv, image, h, 0);
  real *dx = (real *)dqkv->data + (x.queries - (const real *)qkv->data);
  int64_t offset = (image * p.tokens * p.heads + h) * p.size;
  return (backward_case){
      .x = x,
      .dqueries = dx,
      .dkeys = dx + p.heads * p.size,
      .dvalues = dx + 2 * p.heads * p.size,
      .dout = (const real *)dout->data + offset,
      .out = (const real *)out->data + offset,
      .out_row = p.heads * p.size,
      .lse = (const stat *)lse->data + (image * p.heads + h) * p.tokens,
      .scale = (stat)scale,
  };
}

static void backward_begin(const backward_work *w, head x) {
  pack_panels_transposed(w->keys_t, x.keys, x.stride, x.tokens, x.size);
  pack_panels(w->keys, x.keys, x.stride, x.tokens, x.size);
  pack_panels_transposed(w->values_t, x.values, x.stride, x.tokens, x.size);
}

/* logits = S, dlogits = dP = dO·Vᵀ, and delta of the block's rows. */
static void block_begin(const backward_work *w, const backward_case *c, int64_t first, stat *delta) {
  int64_t rows = block_rows(first, c->x.tokens), size = c->x.size;
  const real *dout = c->dout + first * c->out_row;
  block_logits(w->logits, w->logits_row, w->rows, w->keys_t, c->x, first, c->scale);
  block_delta(delta, dout, c->out + first * c->out_row, c->out_row, rows, size);
  copy_rows(w->rows, dout, c->out_row, rows, size, 1);
  product(rows, c->x.tokens, size, w->rows, size, w->values_t, w->dlogits, w->logits_row, 0);
}

/* dV += Pᵀ·dO */
static void block_value_gradients(const backward_work *w, const backward_case *c, int64_t first) {
  int64_t rows = block_rows(first, c->x.tokens), size = c->x.size;
  pack_panels(w->panels, c->dout + first * c->out_row, c->out_row, rows, size);
  product_transposed(c->x.tokens, size, rows, w->logits, w->logits_row, w->panels, w->dvalues, w->size_row, first > 0);
}

/* dQ = scale·dS·K to its place, dK += dSᵀ·Q, still without the scale. */
static void block_query_key_gradients(const backward_work *w, head x, int64_t first, stat scale, real *dqueries) {
  int64_t rows = block_rows(first, x.tokens);
  product(rows, x.size, x.tokens, w->dlogits, w->logits_row, w->keys, w->dqueries, w->size_row, 0);
  store_rows(dqueries + first * x.stride, x.stride, w->dqueries, w->size_row, rows, x.size, scale);
  pack_panels(w->panels, x.queries + first * x.stride, x.stride, rows, x.size);
  product_transposed(x.tokens, x.size, rows, w->dlogits, w->logits_row, w->panels, w->dkeys, w->size_row, first > 0);
}

static void backward_end(const backward_work *w, const backward_case *c) {
  store_rows(c->dkeys, c->x.stride, w->dkeys, w->size_row, c->x.tokens, c->x.size, c->scale);
  store_rows(c->dvalues, c->x.stride, w->dvalues, w->size_row, c->x.tokens, c->x.size, 1);
}

/* The whole of one head. */
static void backward_head(const backward_work *w, const backward_case *c) {
  backward_begin(w, c->x);
  for (int64_t first = 0; first < c->x.tokens; first += QUERY_ROWS) {
    stat delta[QUERY_ROWS];
    block_begin(w, c, first, delta);
    for (int64_t i = 0; i < block_rows(first, c->x.tokens); i++)
      row_backward(w->logits + i * w->logits_row, w->dlogits + i * w->logits_row, c->x.tokens, c->lse[first + i],
                   delta[i]);
    block_value_gradients(w, c, first);
    block_query_key_gradients(w, c->x, first, c->scale, c->dqueries);
  }
  backward_end(w, c);
}

#endif
