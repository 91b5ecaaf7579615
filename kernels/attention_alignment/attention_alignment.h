#ifndef PERIGEE_ATTENTION_ALIGNMENT_H
#define PERIGEE_ATTENTION_ALIGNMENT_H

#include "kernel.h"

/* attention_alignment: the cross-entropy between a teacher's attention map and a student's (HASTE, arXiv 2505.16792,
 * its attention alignment), without storing either map. Heads are compared in pairs k = 1..K, student_heads[k] with
 * teacher_heads[k]; the teacher's first `teacher_skip` tokens (class and register tokens) are dropped, as queries and
 * as keys, before its softmax, which must leave as many tokens as the student has.
 *   S = student_scale·Q·Kᵀ, T = teacher_scale·Q'·K'ᵀ
 *   loss = mean over images, pairs, query rows i of sum_j softmax(T)_ij·(lse_i(S) − S_ij)
 * which is lse_i(S) − sum_j softmax(T)_ij·S_ij without its cancellation. Scratch grows linearly with N.
 *   loss           stat []             =
 *   student        real [B,N,3,H,d]    packed queries, keys, values
 *   teacher        real [B,N+skip,3,H',d']
 *   student_heads  int32 [K]           may be absent: the first K; counted from 0, none twice
 *   teacher_heads  int32 [K]           may be absent: the first K; counted from 0
 * A map that names a head which is not there, or a student's head twice, is an error on the CPU; on CUDA, where a call does
 * not look into device memory, the loss is NaN.
 *   heads K, teacher_skip, student_scale, teacher_scale: as above */
PG_KERNEL(attention_alignment, loss, student, teacher, student_heads, teacher_heads)
PG_INTS(attention_alignment, heads, teacher_skip)
PG_FLOATS(attention_alignment, student_scale, teacher_scale)
PG_KERNEL_PLAN(attention_alignment)

/* attention_alignment_backward: the student's gradient, dS = coefficient·(softmax(S) − softmax(T))/(B·K·N), zero for
 * the values and for heads that are in no pair.
 *   dstudent       real [B,N,3,H,d]    =
 *   coefficient    stat []             d total / d loss
 *   student, teacher, student_heads, teacher_heads, attributes: as above */
PG_KERNEL(attention_alignment_backward, dstudent, coefficient, student, teacher, student_heads, teacher_heads)
PG_INTS(attention_alignment_backward, heads, teacher_skip)
PG_FLOATS(attention_alignment_backward, student_scale, teacher_scale)
PG_KERNEL_PLAN(attention_alignment_backward)

/* attention_aligned_backward: attention_backward, attention_alignment and attention_alignment_backward of one student
 * block in one pass: the student's logits are computed once.
 *   dqkv           real [B,N,3,H,d]    = the sum of both gradients
 *   loss           stat []             = of attention_alignment
 *   dout           real [B,N,H,d]
 *   qkv            real [B,N,3,H,d]
 *   out            real [B,N,H,d]      of attention
 *   lse            stat [B,H,N]        of attention
 *   coefficient    stat []             d total / d loss
 *   teacher, student_heads, teacher_heads, attributes: as above; student_scale is attention's scale too */
PG_KERNEL(attention_aligned_backward, dqkv, loss, dout, qkv, out, lse, coefficient, teacher, student_heads,
          teacher_heads)
PG_INTS(attention_aligned_backward, heads, teacher_skip)
PG_FLOATS(attention_aligned_backward, student_scale, teacher_scale)
PG_KERNEL_PLAN(attention_aligned_backward)

#endif
