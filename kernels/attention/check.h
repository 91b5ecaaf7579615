/* What the attention kernels of every device ask of their arguments (attention.h). After cpu.h or cuda.h. */
#ifndef PERIGEE_ATTENTION_CHECK_H
#define PERIGEE_ATTENTION_CHECK_H

#include "kernel.h"

/* Sizes of a packed qkv view. */
typedef struct packed {
  int64_t images, tokens, heads, size;
} packed;

static packed packed_sizes(const pg_view *qkv) {
  packed p = {qkv->shape[0], qkv->shape[1], qkv->shape[3], qkv->shape[4]};
  return p;
}

static int is_packed(const pg_view *v) {
  return v->dtype == PG_REAL && v->ndim == 5 && v->shape[2] == 3 && pg_numel(v) > 0 && pg_contiguous(v);
}

/* Whether v is [images,tokens,heads,size] of the instance's dtype. */
static int is_unpacked(const pg_view *v, packed p) {
  return v->dtype == PG_REAL && v->ndim == 4 && v->shape[0] == p.images && v->shape[1] == p.tokens &&
         v->shape[2] == p.heads && v->shape[3] == p.size && pg_contiguous(v);
}

/* Whether v is a saved lse, [images,heads,tokens]. */
static int is_lse(const pg_view *v, packed p) {
  return v->dtype == PG_STAT && v->ndim == 3 && v->shape[0] == p.images && v->shape[1] == p.heads &&
         v->shape[2] == p.tokens && pg_contiguous(v);
}

static pg_status expect_attention(const pg_call *call) {
  const pg_view *out = &call->v[0], *lse = &call->v[1], *qkv = &call->v[2];
  PG_EXPECT(call->n == 3 && is_packed(qkv), "attention: qkv is %s; expected [images,tokens,3,heads,size]",
            pg_shape_text(qkv));
  packed p = packed_sizes(qkv);
  PG_EXPECT(is_unpacked(out, p) && (!pg_present(call, 1) || is_lse(lse, p)),
            "attention: qkv is %s, out is %s, lse is %s; expected [B,N,H,d] and [B,H,N]", pg_shape_text(qkv),
            pg_shape_text(out), pg_shape_text(lse));
  return PG_OK;
}

static pg_status expect_attention_backward(const pg_call *call) {
  const pg_view *dqkv = &call->v[0], *dout = &call->v[1], *qkv = &call->v[2], *out = &call->v[3], *lse = &call->v[4];
  PG_EXPECT(call->n == 5 && is_packed(qkv), "attention_backward: qkv is %s; expected [images,tokens,3,heads,size]",
            pg_shape_text(qkv));
  packed p = packed_sizes(qkv);
  PG_EXPECT(is_packed(dqkv) && pg_same_shape(dqkv, qkv), "attention_backward: qkv is %s, dqkv %s; they must match",
            pg_shape_text(qkv), pg_shape_text(dqkv));
  PG_EXPECT(is_unpacked(dout, p) && is_unpacked(out, p) && is_lse(lse, p),
            "attention_backward: qkv is %s, dout %s, out %s, lse %s; expected [B,N,H,d], [B,N,H,d] and [B,H,N]",
            pg_shape_text(qkv), pg_shape_text(dout), pg_shape_text(out), pg_shape_text(lse));
  return PG_OK;
}

#endif
