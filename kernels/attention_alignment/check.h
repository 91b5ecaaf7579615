/* What the attention_alignment kernels of every device ask of their arguments (attention_alignment.h). After cpu.h or
 * cuda.h. */
#ifndef PERIGEE_ATTENTION_ALIGNMENT_CHECK_H
#define PERIGEE_ATTENTION_ALIGNMENT_CHECK_H

#include "attention/check.h"

/* ---- a call's views and attributes ---- */

typedef struct alignment {
  const pg_view *student, *teacher;
  const int32_t *student_heads, *teacher_heads; /* NULL: the first ones */
  int64_t pairs, skip;
  stat student_scale, teacher_scale;
  packed p; /* of the student */
} alignment;

/* views: where teacher stands; student_heads and teacher_heads follow it. */
static alignment alignment_of(const pg_call *call, int student, int views) {
  alignment a;
  a.student = &call->v[student];
  a.teacher = &call->v[views];
  a.student_heads = pg_present(call, views + 1) ? (const int32_t *)call->v[views + 1].data : 0;
  a.teacher_heads = pg_present(call, views + 2) ? (const int32_t *)call->v[views + 2].data : 0;
  a.pairs = call->i[0];
  a.skip = call->i[1];
  a.student_scale = (stat)call->f[0];
  a.teacher_scale = (stat)call->f[1];
  a.p = packed_sizes(a.student);
  return a;
}

/* Everything from `teacher` on in a call whose teacher is view `views`; what the maps say is the kernel's to check. */
static pg_status expect_alignment(const char *name, const pg_call *call, int student, int views, alignment *a) {
  const pg_view *s = &call->v[student], *t = &call->v[views];
  PG_EXPECT(call->n > views && is_packed(s) && is_packed(t),
            "%s: student is %s, teacher is %s; expected [images,tokens,3,heads,size]", name, pg_shape_text(s),
            pg_shape_text(t));
  *a = alignment_of(call, student, views);
  PG_EXPECT(t->shape[0] == s->shape[0] && a->skip >= 0 && t->shape[1] - a->skip == s->shape[1],
            "%s: student is %s, teacher is %s without its first %lld tokens; images and tokens must match", name,
            pg_shape_text(s), pg_shape_text(t), (long long)a->skip);
  PG_EXPECT(a->pairs > 0 && a->pairs <= a->p.heads, "%s: %lld heads of the student's %lld", name, (long long)a->pairs,
            (long long)a->p.heads);
  PG_EXPECT(a->teacher_heads || a->pairs <= t->shape[3], "%s: %lld heads of the teacher's %lld", name, (long long)a->pairs,
            (long long)t->shape[3]);
  for (int k = views + 1; k <= views + 2; k++)
    PG_EXPECT(!pg_present(call, k) || (call->v[k].dtype == PG_INT32 && call->v[k].ndim == 1 &&
                                       call->v[k].shape[0] == a->pairs && pg_contiguous(&call->v[k])),
              "%s: a head map is %s; expected int32 [%lld]", name, pg_shape_text(&call->v[k]), (long long)a->pairs);
  return PG_OK;
}

static int is_scalar(const pg_view *v) { return v->dtype == PG_STAT && pg_numel(v) == 1; }

static pg_status expect_attention_alignment(const pg_call *call, alignment *a) {
  pg_status status = expect_alignment("attention_alignment", call, 1, 2, a);
  if (status) return status;
  PG_EXPECT(is_scalar(&call->v[0]), "attention_alignment: loss is %s; expected []", pg_shape_text(&call->v[0]));
  return PG_OK;
}

static pg_status expect_attention_alignment_backward(const pg_call *call, alignment *a) {
  const pg_view *dstudent = &call->v[0], *coefficient = &call->v[1];
  pg_status status = expect_alignment("attention_alignment_backward", call, 2, 3, a);
  if (status) return status;
  PG_EXPECT(is_packed(dstudent) && pg_same_shape(dstudent, a->student) && is_scalar(coefficient),
            "attention_alignment_backward: student is %s, its gradient %s, coefficient %s; expected the same and []",
            pg_shape_text(a->student), pg_shape_text(dstudent), pg_shape_text(coefficient));
  return PG_OK;
}

static pg_status expect_attention_aligned_backward(const pg_call *call, alignment *a) {
  const pg_view *dqkv = &call->v[0], *loss = &call->v[1], *dout = &call->v[2], *out = &call->v[4], *lse = &call->v[5];
  const pg_view *coefficient = &call->v[6];
  pg_status status = expect_alignment("attention_aligned_backward", call, 3, 7, a);
  if (status) return status;
  PG_EXPECT(is_packed(dqkv) && pg_same_shape(dqkv, a->student) && is_scalar(loss) && is_scalar(coefficient),
            "attention_aligned_backward: qkv is %s, dqkv %s, loss %s, coefficient %s; expected the same, [] and []",
            pg_shape_text(a->student), pg_shape_text(dqkv), pg_shape_text(loss), pg_shape_text(coefficient));
  PG_EXPECT(is_unpacked(dout, a->p) && is_unpacked(out, a->p) && is_lse(lse, a->p),
            "attention_aligned_backward: qkv is %s, dout %s, out %s, lse %s; expected [B,N,H,d], [B,N,H,d] and [B,H,N]",
            pg_shape_text(a->student), pg_shape_text(dout), pg_shape_text(out), pg_shape_text(lse));
  return PG_OK;
}

#endif
