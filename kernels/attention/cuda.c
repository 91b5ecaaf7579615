/* Attention on GPUs. In float32 it is our own (cuda.cu). In bfloat16 cuDNN's competes with ours where the plugin is
 * built with cuDNN, and which of the two runs is a choice (cuda_cudnn_choice.h; PERIGEE_ATTENTION asks for one of
 * them). */

#include "attention/attention.h"
#include "attention/own.h"

pg_status attention_cuda_float32(const pg_call *call) { return attention_own_cuda_float32(call); }
int64_t attention_scratch_cuda_float32(const pg_call *call) { return (void)call, 0; }
pg_status attention_backward_cuda_float32(const pg_call *call) { return attention_own_backward_cuda_float32(call); }
int64_t attention_backward_scratch_cuda_float32(const pg_call *call) {
  return attention_own_backward_scratch_cuda_float32(call);
}

static int64_t own_scratch(const pg_call *call, int backward) {
  return backward ? attention_own_backward_scratch_cuda_bfloat16(call) : 0;
}
static pg_status run_own(const pg_call *call, int backward) {
  return backward ? attention_own_backward_cuda_bfloat16(call) : attention_own_cuda_bfloat16(call);
}

#ifdef PERIGEE_WITH_CUDNN

#define PG_REAL PG_BFLOAT16
#define PG_STAT PG_FLOAT32
#include "attention/check.h"
#include "attention/cudnn.h"
#include "cuda_cudnn_choice.h"

/* The problem that a choice is made for. */
typedef struct problem {
  int backward, with_lse;
  attention_size size;
} problem;

static problem problem_of(const pg_call *call, int backward) {
  const packed p = packed_sizes(backward ? attention_backward_of(call).qkv : attention_of(call).qkv);
  const int with_lse = backward || pg_present(attention_of(call).lse);
  return (problem){backward, with_lse, {p.images, p.tokens, p.heads, p.size}};
}

static pg_status draw(cudnn_graph *g, const void *data) {
  const problem *p = data;
  return p->backward ? attention_cudnn_backward(g, p->size) : attention_cudnn_forward(g, p->size, p->with_lse);
}

static pg_status run_ours(const pg_call *call, const void *data) { return run_own(call, ((const problem *)data)->backward); }

/* Queries (0), keys (1) or values (2) of a packed [B,N,3,H,d]. */
static void *part(const pg_view *qkv, int which) {
  const packed p = packed_sizes(qkv);
  return (char *)qkv->data + which * p.heads * p.size * 2;
}

static pg_status run_forward(const cudnn_graph *g, const pg_call *call, void *workspace) {
  const attention_views v = attention_of(call);
  float scale = (float)attention_floats_of(call).scale;
  void *t[ATTENTION_TENSORS] = {NULL};
  for (int k = 0; k < 3; k++) t[ATTENTION_QUERIES + k] = part(v.qkv, k);
  t[ATTENTION_SCALE] = &scale, t[ATTENTION_OUT] = v.out->data, t[ATTENTION_LSE] = v.lse->data;
  return cudnn_run(g, ATTENTION_TENSORS, t, workspace, call->stream);
}

static pg_status run_backward(const cudnn_graph *g, const pg_call *call, void *workspace, void *delta) {
  const attention_backward_views v = attention_backward_of(call);
  float scale = (float)attention_backward_floats_of(call).scale, one = 1;
  void *t[ATTENTION_TENSORS] = {NULL};
  for (int k = 0; k < 3; k++) t[ATTENTION_QUERIES + k] = part(v.qkv, k), t[ATTENTION_DQUERIES + k] = part(v.dqkv, k);
  t[ATTENTION_SCALE] = &scale, t[ATTENTION_ONE] = &one, t[ATTENTION_DELTA] = delta;
  t[ATTENTION_DOUT] = v.dout->data, t[ATTENTION_OUT] = v.out->data, t[ATTENTION_LSE] = v.lse->data;
  return cudnn_run(g, ATTENTION_TENSORS, t, workspace, call->stream);
}

static pg_status run_cudnn(const cudnn_graph *g, const pg_call *call, const void *data, void *workspace, void *beside) {
  return ((const problem *)data)->backward ? run_backward(g, call, workspace, beside) : run_forward(g, call, workspace);
}

static const cudnn_rival rival = {"attention", "PERIGEE_ATTENTION", draw, run_ours, run_cudnn};

/* cuDNN may have no more workspace than the queries, keys and values in float32: its backward keeps a map in
 * bfloat16, so from some number of tokens on it is out. Besides that the backward has its delta. */
static cudnn_contest contest_of(const pg_call *call, const problem *p) {
  const attention_size n = p->size;
  const int64_t rows = n.images * n.heads * n.tokens;
  cudnn_contest c = {.rival = &rival, .call = call, .problem = p, .own_scratch = own_scratch(call, p->backward),
                     .most_workspace = rows * 3 * n.size * 4, .beside = p->backward ? rows * 4 : 0};
  snprintf(c.key, sizeof c.key, "%s/%s/cudnn-%zu/bfloat16/%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 "%s",
           p->backward ? "attention_backward" : "attention", pg_gpu_name(), cudnnGetVersion(), n.images, n.tokens, n.heads,
           n.size, p->with_lse ? "+lse" : "");
  return c;
}

static pg_status run(const pg_call *call, int backward) {
  TRY(backward ? expect_attention_backward(call) : expect_attention(call));
  const problem p = problem_of(call, backward);
  const cudnn_contest c = contest_of(call, &p);
  return cudnn_contest_run(&c);
}

static int64_t scratch(const pg_call *call, int backward) {
  if (backward ? expect_attention_backward(call) : expect_attention(call)) return -1;
  const problem p = problem_of(call, backward);
  const cudnn_contest c = contest_of(call, &p);
  return cudnn_contest_scratch(&c);
}

#else

static pg_status run(const pg_call *call, int backward) { return run_own(call, backward); }
static int64_t scratch(const pg_call *call, int backward) { return own_scratch(call, backward); }

#endif

pg_status attention_cuda_bfloat16(const pg_call *call) { return run(call, 0); }
pg_status attention_backward_cuda_bfloat16(const pg_call *call) { return run(call, 1); }
int64_t attention_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, 0); }
int64_t attention_backward_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, 1); }
