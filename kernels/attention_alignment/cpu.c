#include "cpu.h"

#include <omp.h>

#include "attention/cpu_backward.h"
#include "attention_alignment/attention_alignment.h"
#include "attention_alignment/check.h"

/* ---- pairs of heads ---- */

enum { NO_PAIR = -1 };

static int64_t head_in(const int32_t *map, int64_t pair) { return map ? map[pair] : pair; }
static int64_t student_head(const alignment *a, int64_t pair) { return head_in(a->student_heads, pair); }
static int64_t teacher_head(const alignment *a, int64_t pair) { return head_in(a->teacher_heads, pair); }

/* The pair that a student head is in, or NO_PAIR. */
static int64_t pair_of(const alignment *a, int64_t h) {
  for (int64_t pair = 0; pair < a->pairs; pair++)
    if (student_head(a, pair) == h) return pair;
  return NO_PAIR;
}

static pg_status check_heads(const char *name, const alignment *a) {
  for (int64_t pair = 0; pair < a->pairs; pair++) {
    int64_t s = student_head(a, pair), t = teacher_head(a, pair);
    PG_EXPECT(s >= 0 && s < a->p.heads, "%s: student head %lld; there are %lld", name, (long long)s + 1,
              (long long)a->p.heads);
    PG_EXPECT(t >= 0 && t < a->teacher->shape[3], "%s: teacher head %lld; there are %lld", name, (long long)t + 1,
              (long long)a->teacher->shape[3]);
    PG_EXPECT(pair_of(a, s) == pair, "%s: student head %lld is in two pairs", name, (long long)s + 1);
  }
  return PG_OK;
}

/* ---- workspace ---- */

/* The teacher's side of a thread's workspace; d': the teacher's head size. */
typedef struct teacher_work {
  stat *keys_t;  /* panels of K'ᵀ [d',N] */
  stat *queries; /* teacher_scale·Q' [R,d'] */
  stat *logits;  /* [R,N] T, then exp(T − max) */
} teacher_work;

static void teacher_work_take(teacher_work *w, bump *b, const alignment *a) {
  int64_t tokens = a->p.tokens, size = a->teacher->shape[4];
  w->keys_t = take(b, panels_size(size, tokens));
  w->queries = take(b, QUERY_ROWS * size);
  w->logits = take(b, QUERY_ROWS * row_stride(tokens));
}

static int64_t work_bytes(const alignment *a) {
  bump count = {NULL, 0};
  backward_work w;
  teacher_work t;
  backward_work_take(&w, &count, a->p.tokens, a->p.size);
  teacher_work_take(&t, &count, a);
  return count.used;
}

/* Scratch: one partial loss a (image, pair), then a workspace a thread. */
static int64_t partial_bytes(const alignment *a) {
  return pg_round_up(a->p.images * a->pairs * (int64_t)sizeof(double), 64);
}

static int64_t scratch_bytes(const alignment *a) {
  if (!are_packed(a)) return 0; /* the call itself says what is wrong */
  return partial_bytes(a) + worker_count(a->p.images * a->p.heads) * work_bytes(a);
}

static void work_of_thread(const pg_call *call, const alignment *a, backward_work *w, teacher_work *t) {
  char *base = (char *)call->scratch + partial_bytes(a) + omp_get_thread_num() * work_bytes(a);
  bump scratch = {base, 0};
  backward_work_take(w, &scratch, a->p.tokens, a->p.size);
  teacher_work_take(t, &scratch, a);
}

static void store_loss(const pg_view *loss, const alignment *a, const double *partial) {
  double sum = 0;
  for (int64_t k = 0; k < a->p.images * a->pairs; k++) sum += partial[k];
  *(stat *)loss->data = (stat)(sum / (double)(a->p.images * a->pairs * a->p.tokens));
}

/* ---- rows ---- */

/* lse of a row, which stays. */
static stat row_lse(const stat *row, int64_t n) {
  stat largest = row_max(row, n), sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += softmax_exp(row[j] - largest);
  return largest + pg_log(sum);
}

/* teacher = exp(T − max); returns 1/sum and adds sum_j softmax(T)_j·(lse − S_j) to loss. */
static stat row_teacher(stat *teacher, const stat *student, int64_t n, stat lse, double *loss) {
  stat largest = row_max(teacher, n), sum = 0, cross = 0;
#pragma omp simd reduction(+ : sum, cross)
  for (int64_t j = 0; j < n; j++) {
    stat e = softmax_exp(teacher[j] - largest);
    teacher[j] = e;
    sum += e;
    cross += e * (lse - student[j]);
  }
  *loss += cross / sum;
  return 1 / sum;
}

/* ds = coefficient·(softmax(S) − softmax(T)), from S and exp(T − max). */
static void row_alignment(stat *dlogits, const stat *logits, const stat *teacher, int64_t n, stat lse, stat coefficient,
                          stat inverse) {
#pragma omp simd
  for (int64_t j = 0; j < n; j++) dlogits[j] = coefficient * (softmax_exp(logits[j] - lse) - teacher[j] * inverse);
}

/* row_backward and row_alignment in one: ds = p·(dp − delta) + coefficient·(p − softmax(T)). */
static void row_aligned_backward(stat *logits, stat *dlogits, const stat *teacher, int64_t n, stat lse, stat delta,
                                 stat coefficient, stat inverse) {
  stat shift = delta - coefficient, pull = coefficient * inverse;
#pragma omp simd
  for (int64_t j = 0; j < n; j++) {
    stat p = softmax_exp(logits[j] - lse);
    logits[j] = p;
    dlogits[j] = p * (dlogits[j] - shift) - pull * teacher[j];
  }
}

/* ---- the loss ---- */

/* Sum over rows of one pair's cross-entropies. */
static double head_loss(const backward_work *w, const teacher_work *t, const alignment *a, head x, head y) {
  double loss = 0;
  pack_panels_transposed(w->keys_t, x.keys, x.stride, x.tokens, x.size);
  pack_panels_transposed(t->keys_t, y.keys, y.stride, y.tokens, y.size);
  for (int64_t first = 0; first < x.tokens; first += QUERY_ROWS) {
    block_logits(w->logits, w->logits_row, w->rows, w->keys_t, x, first, a->student_scale);
    block_logits(t->logits, w->logits_row, t->queries, t->keys_t, y, first, a->teacher_scale);
    for (int64_t i = 0; i < block_rows(first, x.tokens); i++) {
      const stat *student = w->logits + i * w->logits_row;
      row_teacher(t->logits + i * w->logits_row, student, x.tokens, row_lse(student, x.tokens), &loss);
    }
  }
  return loss;
}

int64_t PG_CPU(attention_alignment_scratch)(const pg_call *call) {
  const alignment a = alignment_of_forward(call);
  return scratch_bytes(&a);
}

pg_status PG_CPU(attention_alignment)(const pg_call *call) {
  const attention_alignment_views v = attention_alignment_of(call);
  alignment a;
  pg_status status = expect_attention_alignment(call, &a);
  if (!status) status = check_heads("attention_alignment", &a);
  if (status) return status;
  status = check_scratch("attention_alignment", call, scratch_bytes(&a));
  if (status) return status;
  double *partial = call->scratch;
  int64_t pieces = a.p.images * a.pairs;
#pragma omp parallel for schedule(static) num_threads(worker_count(pieces))
  for (int64_t piece = 0; piece < pieces; piece++) {
    int64_t image = piece / a.pairs, pair = piece % a.pairs;
    backward_work w;
    teacher_work t;
    work_of_thread(call, &a, &w, &t);
    partial[piece] = head_loss(&w, &t, &a, head_of(a.student, image, student_head(&a, pair), 0),
                               head_of(a.teacher, image, teacher_head(&a, pair), a.skip));
  }
  store_loss(v.loss, &a, partial);
  return PG_OK;
}

/* ---- its gradient ---- */

static void zero_rows(real *to, int64_t to_row, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) memset(to + i * to_row, 0, (size_t)columns * sizeof(real));
}

/* Queries and keys of a head that is in a pair; coefficient: of one row's loss. */
static void alignment_backward_head(const backward_work *w, const teacher_work *t, const alignment *a, head x, head y,
                                    stat coefficient, real *dqueries, real *dkeys) {
  double ignored = 0;
  pack_panels_transposed(w->keys_t, x.keys, x.stride, x.tokens, x.size);
  pack_panels(w->keys, x.keys, x.stride, x.tokens, x.size);
  pack_panels_transposed(t->keys_t, y.keys, y.stride, y.tokens, y.size);
  for (int64_t first = 0; first < x.tokens; first += QUERY_ROWS) {
    block_logits(w->logits, w->logits_row, w->rows, w->keys_t, x, first, a->student_scale);
    block_logits(t->logits, w->logits_row, t->queries, t->keys_t, y, first, a->teacher_scale);
    for (int64_t i = 0; i < block_rows(first, x.tokens); i++) {
      stat *student = w->logits + i * w->logits_row, *teacher = t->logits + i * w->logits_row;
      stat lse = row_lse(student, x.tokens), inverse = row_teacher(teacher, student, x.tokens, lse, &ignored);
      row_alignment(w->dlogits + i * w->logits_row, student, teacher, x.tokens, lse, coefficient, inverse);
    }
    block_query_key_gradients(w, x, first, a->student_scale, dqueries);
  }
  store_rows(dkeys, x.stride, w->dkeys, w->size_row, x.tokens, x.size, a->student_scale);
}

int64_t PG_CPU(attention_alignment_backward_scratch)(const pg_call *call) {
  const alignment a = alignment_of_backward(call);
  return scratch_bytes(&a);
}

pg_status PG_CPU(attention_alignment_backward)(const pg_call *call) {
  const attention_alignment_backward_views v = attention_alignment_backward_of(call);
  alignment a;
  pg_status status = expect_attention_alignment_backward(call, &a);
  if (!status) status = check_heads("attention_alignment_backward", &a);
  if (status) return status;
  status = check_scratch("attention_alignment_backward", call, scratch_bytes(&a));
  if (status) return status;
  packed p = a.p;
  stat c = *(const stat *)v.coefficient->data / (stat)(p.images * a.pairs * p.tokens);
  int64_t pieces = p.images * p.heads;
#pragma omp parallel for schedule(dynamic) num_threads(worker_count(pieces))
  for (int64_t piece = 0; piece < pieces; piece++) {
    int64_t image = piece / p.heads, h = piece % p.heads, pair = pair_of(&a, h);
    head x = head_of(a.student, image, h, 0);
    real *dqueries = (real *)v.dstudent->data + (x.queries - (const real *)a.student->data);
    real *dkeys = dqueries + p.heads * p.size, *dvalues = dkeys + p.heads * p.size;
    zero_rows(dvalues, x.stride, p.tokens, p.size);
    if (pair == NO_PAIR) {
      zero_rows(dqueries, x.stride, p.tokens, p.size);
      zero_rows(dkeys, x.stride, p.tokens, p.size);
      continue;
    }
    backward_work w;
    teacher_work t;
    work_of_thread(call, &a, &w, &t);
    head y = head_of(a.teacher, image, teacher_head(&a, pair), a.skip);
    alignment_backward_head(&w, &t, &a, x, y, c, dqueries, dkeys);
  }
  return PG_OK;
}

/* ---- loss and gradient inside the attention's backward ---- */

/* Returns the sum over rows of the pair's cross-entropies. */
static double aligned_backward_head(const backward_work *w, const teacher_work *t, const alignment *a,
                                    const backward_case *c, head y, stat coefficient) {
  double loss = 0;
  backward_begin(w, c->x);
  pack_panels_transposed(t->keys_t, y.keys, y.stride, y.tokens, y.size);
  for (int64_t first = 0; first < c->x.tokens; first += QUERY_ROWS) {
    stat delta[QUERY_ROWS];
    block_begin(w, c, first, delta);
    block_logits(t->logits, w->logits_row, t->queries, t->keys_t, y, first, a->teacher_scale);
    for (int64_t i = 0; i < block_rows(first, c->x.tokens); i++) {
      stat *student = w->logits + i * w->logits_row, *teacher = t->logits + i * w->logits_row;
      stat inverse = row_teacher(teacher, student, c->x.tokens, c->lse[first + i], &loss);
      row_aligned_backward(student, w->dlogits + i * w->logits_row, teacher, c->x.tokens, c->lse[first + i], delta[i],
                           coefficient, inverse);
    }
    block_value_gradients(w, c, first);
    block_query_key_gradients(w, c->x, first, c->scale, c->dqueries);
  }
  backward_end(w, c);
  return loss;
}

int64_t PG_CPU(attention_aligned_backward_scratch)(const pg_call *call) {
  const alignment a = alignment_of_aligned_backward(call);
  return scratch_bytes(&a);
}

pg_status PG_CPU(attention_aligned_backward)(const pg_call *call) {
  const attention_aligned_backward_views v = attention_aligned_backward_of(call);
  alignment a;
  pg_status status = expect_attention_aligned_backward(call, &a);
  if (!status) status = check_heads("attention_aligned_backward", &a);
  if (status) return status;
  packed p = a.p;
  status = check_scratch("attention_aligned_backward", call, scratch_bytes(&a));
  if (status) return status;
  const double scale = attention_aligned_backward_floats_of(call).student_scale;
  double *partial = call->scratch;
  stat c = *(const stat *)v.coefficient->data / (stat)(p.images * a.pairs * p.tokens);
  int64_t pieces = p.images * p.heads;
#pragma omp parallel for schedule(dynamic) num_threads(worker_count(pieces))
  for (int64_t piece = 0; piece < pieces; piece++) {
    int64_t image = piece / p.heads, h = piece % p.heads, pair = pair_of(&a, h);
    backward_work w;
    teacher_work t;
    work_of_thread(call, &a, &w, &t);
    backward_case one = backward_case_of(v.dqkv, v.dout, a.student, v.out, v.lse, image, h, scale);
    if (pair == NO_PAIR) backward_head(&w, &one);
    else
      partial[image * a.pairs + pair] =
          aligned_backward_head(&w, &t, &a, &one, head_of(a.teacher, image, teacher_head(&a, pair), a.skip), c);
  }
  store_loss(v.loss, &a, partial);
  return PG_OK;
}
