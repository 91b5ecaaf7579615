/* attention_alignment: the cross-entropy between a teacher's attention map and a student's (HASTE, arXiv 2505.16792,
 * its attention alignment), without storing either map. Heads are compared in pairs k = 1..K, student_heads[k] with
 * teacher_heads[k]; the teacher's first `teacher_skip` tokens (class and register tokens) are dropped, as queries and
 * as keys, before its softmax, which must leave as many tokens as the student has.
 *   S = student_scale·Q·Kᵀ, T = teacher_scale·Q'·K'ᵀ
 *   loss = mean over images, pairs, query rows i of sum_j softmax(T)_ij·(lse_i(S) − S_ij)
 * which is lse_i(S) − sum_j softmax(T)_ij·S_ij without its cancellation. Scratch grows linearly with N.
 *   v[0] loss           stat []             =
 *   v[1] student        real [B,N,3,H,d]    packed queries, keys, values
 *   v[2] teacher        real [B,N+skip,3,H',d']
 *   v[3] student_heads  int32 [K]           may be absent: the first K; counted from 0, none twice
 *   v[4] teacher_heads  int32 [K]           may be absent: the first K; counted from 0
 * A map that names a head which is not there, or a student's head twice, is an error on the CPU; on CUDA, where a call does
 * not look into device memory, the loss is NaN.
 *   i[0] heads K, i[1] teacher_skip
 *   f[0] student_scale, f[1] teacher_scale */
PG_KERNEL(attention_alignment)
PG_KERNEL_PLAN(attention_alignment)

/* attention_alignment_backward: the student's gradient, dS = coefficient·(softmax(S) − softmax(T))/(B·K·N), zero for
 * the values and for heads that are in no pair.
 *   v[0] dstudent       real [B,N,3,H,d]    =
 *   v[1] coefficient    stat []             d total / d loss
 *   v[2] student, v[3] teacher, v[4] student_heads, v[5] teacher_heads, i[], f[]: as above */
PG_KERNEL(attention_alignment_backward)
PG_KERNEL_PLAN(attention_alignment_backward)

/* attention_aligned_backward: attention_backward, attention_alignment and attention_alignment_backward of one student
 * block in one pass: the student's logits are computed once.
 *   v[0] dqkv           real [B,N,3,H,d]    = the sum of both gradients
 *   v[1] loss           stat []             = of attention_alignment
 *   v[2] dout           real [B,N,H,d]
 *   v[3] qkv            real [B,N,3,H,d]
 *   v[4] out            real [B,N,H,d]      of attention
 *   v[5] lse            stat [B,H,N]        of attention
 *   v[6] coefficient    stat []             d total / d loss
 *   v[7] teacher, v[8] student_heads, v[9] teacher_heads, i[], f[]: as above; student_scale is attention's scale too */
PG_KERNEL(attention_aligned_backward)
PG_KERNEL_PLAN(attention_aligned_backward)
