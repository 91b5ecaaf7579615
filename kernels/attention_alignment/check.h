/* Checks of the attention_alignment kernels' arguments, on every device (attention_alignment.h). After cpu.h or
 * cuda.h. */
#ifndef PERIGEE_ATTENTION_ALIGNMENT_CHECK_H
#define PERIGEE_ATTENTION_ALIGNMENT_CHECK_H

#include "attention/check.h"
#include "attention_alignment/attention_alignment.h"

/* ---- a call's views and attributes ---- */

typedef struct alignment {
  const pg_view *student, *teacher, *student_map, *teacher_map;
  const int32_t *student_heads, *teacher_heads; /* what the maps hold; NULL: the first ones */
  int64_t pairs, skip;
  stat student_scale, teacher_scale;
  packed p; /* of the student */
} alignment;

/* The three kernels have the same attributes. */
static alignment alignment_of(const pg_call *call, const pg_view *student, const pg_view *teacher,
                              const pg_view *student_map, const pg_view *teacher_map) {
  const attention_alignment_ints i = attention_alignment_ints_of(call);
  const attention_alignment_floats f = attention_alignment_floats_of(call);
  alignment a;
  a.student = student, a.teacher = teacher, a.student_map = student_map, a.teacher_map = teacher_map;
  a.student_heads = (const int32_t *)student_map->data;
  a.teacher_heads = (const int32_t *)teacher_map->data;
  a.pairs = i.heads;
  a.skip = i.teacher_skip;
  a.student_scale = (stat)f.student_scale;
  a.teacher_scale = (stat)f.teacher_scale;
  a.p = packed_sizes(student);
  return a;
}

static alignment alignment_of_forward(const pg_call *call) {
  const attention_alignment_views v = attention_alignment_of(call);
  return alignment_of(call, v.student, v.teacher, v.student_heads, v.teacher_heads);
}

static alignment alignment_of_backward(const pg_call *call) {
  const attention_alignment_backward_views v = attention_alignment_backward_of(call);
  return alignment_of(call, v.student, v.teacher, v.student_heads, v.teacher_heads);
}

static alignment alignment_of_aligned_backward(const pg_call *call) {
  const attention_aligned_backward_views v = attention_aligned_backward_of(call);
  return alignment_of(call, v.qkv, v.teacher, v.student_heads, v.teacher_heads);
}

static pg_status expect_map(const char *name, const pg_view *map, int64_t pairs) {
  PG_EXPECT(!pg_present(map) ||
                (map->dtype == PG_INT32 && map->ndim == 1 && map->shape[0] == pairs && pg_contiguous(map)),
            "%s: a head map is %s; expected int32 [%lld]", name, pg_shape_text(map), (long long)pairs);
  return PG_OK;
}

static int are_packed(const alignment *a) { return is_packed(a->student) && is_packed(a->teacher); }

/* What the three kernels ask of student, teacher, maps and attributes; what the maps say is the kernel's to check. */
static pg_status expect_alignment(const char *name, const alignment *a) {
  const pg_view *s = a->student, *t = a->teacher;
  PG_EXPECT(are_packed(a), "%s: student is %s, teacher is %s; expected [images,tokens,3,heads,size]", name,
            pg_shape_text(s), pg_shape_text(t));
  PG_EXPECT(t->shape[0] == s->shape[0] && a->skip >= 0 && t->shape[1] - a->skip == s->shape[1],
            "%s: student is %s, teacher is %s without its first %lld tokens; images and tokens must match", name,
            pg_shape_text(s), pg_shape_text(t), (long long)a->skip);
  PG_EXPECT(a->pairs > 0 && a->pairs <= a->p.heads, "%s: %lld heads of the student's %lld", name, (long long)a->pairs,
            (long long)a->p.heads);
  PG_EXPECT(a->teacher_heads || a->pairs <= t->shape[3], "%s: %lld heads of the teacher's %lld", name, (long long)a->pairs,
            (long long)t->shape[3]);
  pg_status status = expect_map(name, a->student_map, a->pairs);
  return status ? status : expect_map(name, a->teacher_map, a->pairs);
}

static int is_scalar(const pg_view *v) { return v->dtype == PG_STAT && pg_numel(v) == 1; }

static pg_status expect_attention_alignment(const pg_call *call, alignment *a) {
  const attention_alignment_views v = attention_alignment_of(call);
  *a = alignment_of_forward(call);
  pg_status status = expect_alignment("attention_alignment", a);
  if (status) return status;
  PG_EXPECT(is_scalar(v.loss), "attention_alignment: loss is %s; expected []", pg_shape_text(v.loss));
  return PG_OK;
}

static pg_status expect_attention_alignment_backward(const pg_call *call, alignment *a) {
  const attention_alignment_backward_views v = attention_alignment_backward_of(call);
  *a = alignment_of_backward(call);
  pg_status status = expect_alignment("attention_alignment_backward", a);
  if (status) return status;
  PG_EXPECT(is_packed(v.dstudent) && pg_same_shape(v.dstudent, a->student) && is_scalar(v.coefficient),
            "attention_alignment_backward: student is %s, its gradient %s, coefficient %s; expected the same and []",
            pg_shape_text(a->student), pg_shape_text(v.dstudent), pg_shape_text(v.coefficient));
  return PG_OK;
}

static pg_status expect_attention_aligned_backward(const pg_call *call, alignment *a) {
  const attention_aligned_backward_views v = attention_aligned_backward_of(call);
  *a = alignment_of_aligned_backward(call);
  pg_status status = expect_alignment("attention_aligned_backward", a);
  if (status) return status;
  PG_EXPECT(is_packed(v.dqkv) && pg_same_shape(v.dqkv, a->student) && is_scalar(v.loss) && is_scalar(v.coefficient),
            "attention_aligned_backward: qkv is %s, dqkv %s, loss %s, coefficient %s; expected the same, [] and []",
            pg_shape_text(a->student), pg_shape_text(v.dqkv), pg_shape_text(v.loss), pg_shape_text(v.coefficient));
  PG_EXPECT(is_unpacked(v.dout, a->p) && is_unpacked(v.out, a->p) && is_lse(v.lse, a->p),
            "attention_aligned_backward: qkv is %s, dout %s, out %s, lse %s; expected [B,N,H,d], [B,N,H,d] and [B,H,N]",
            pg_shape_text(a->student), pg_shape_text(v.dout), pg_shape_text(v.out), pg_shape_text(v.lse));
  return PG_OK;
}

#endif
