/* Checks of the attention kernels' arguments, on every device (attention.h). After cpu.h or cuda.h. */
#ifndef PERIGEE_ATTENTION_CHECK_H
#define PERIGEE_ATTENTION_CHECK_H

#include "attention/attention.h"

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
  const attention_views v = attention_of(call);
  PG_EXPECT(is_packed(v.qkv), "attention: qkv is %s; expected [images,tokens,3,heads,size]",
            pg_shape_text(v.qkv));
  packed p = packed_sizes(v.qkv);
  PG_EXPECT(is_unpacked(v.out, p) && (!pg_present(v.lse) || is_lse(v.lse, p)),
            "attention: qkv is %s, out is %s, lse is %s; expected [B,N,H,d] and [B,H,N]", pg_shape_text(v.qkv),
            pg_shape_text(v.out), pg_shape_text(v.lse));
  return PG_OK;
}

static pg_status expect_attention_backward(const pg_call *call) {
  const attention_backward_views v = attention_backward_of(call);
  PG_EXPECT(is_packed(v.qkv), "attention_backward: qkv is %s; expected [images,tokens,3,heads,size]",
            pg_shape_text(v.qkv));
  packed p = packed_sizes(v.qkv);
  PG_EXPECT(is_packed(v.dqkv) && pg_same_shape(v.dqkv, v.qkv),
            "attention_backward: qkv is %s, dqkv %s; they must match", pg_shape_text(v.qkv), pg_shape_text(v.dqkv));
  PG_EXPECT(is_unpacked(v.dout, p) && is_unpacked(v.out, p) && is_lse(v.lse, p),
            "attention_backward: qkv is %s, dout %s, out %s, lse %s; expected [B,N,H,d], [B,N,H,d] and [B,H,N]",
            pg_shape_text(v.qkv), pg_shape_text(v.dout), pg_shape_text(v.out), pg_shape_text(v.lse));
  return PG_OK;
}

#endif
