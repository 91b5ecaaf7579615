/* Attention on GPUs. In float32 it is our own (cuda.cu). In bfloat16 cuDNN's stands beside ours where the plugin is built with
 * cuDNN: when a program is planned both are timed, and the faster is kept as a choice (runtime/choices.c), "own" or an engine
 * of cuDNN's. Its plan is made then, never while a graph is captured, and lives as long as the process. Eager calls are ours,
 * unless their shape has been planned. Where cuDNN has no plan, or none in a workspace that grows linearly, attention is ours.
 *
 * PERIGEE_ATTENTION=own or cudnn asks for one of the two, and cudnn then serves eager calls too. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The entries of the plugin's table, for both dtypes. */
#define PG_KERNEL(name) \
  pg_status name##_cuda_float32(const pg_call *call); \
  pg_status name##_cuda_bfloat16(const pg_call *call);
#define PG_KERNEL_PLAN(name) \
  int64_t name##_scratch_cuda_float32(const pg_call *call); \
  int64_t name##_scratch_cuda_bfloat16(const pg_call *call);

#include "kernel.h"

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
#include "cuda_choice.h"

enum { ENGINES = 4, KEY_BYTES = 320 };
enum { EITHER, OWN, CUDNN }; /* what PERIGEE_ATTENTION asks for */

/* What a choice is made for. */
typedef struct problem {
  int backward, with_lse;
  attention_size size;
} problem;

/* What was chosen in this process. A graph without a plan: our own kernels. */
typedef struct solution {
  problem problem;
  int wish; /* as it was then */
  cudnn_graph graph;
  char engine[CUDNN_ENGINE_TEXT];
} solution;

static solution *solutions;
static int solution_count, solution_room;

#define TRY(expression) \
  do { \
    pg_status status_ = (expression); \
    if (status_) return status_; \
  } while (0)

static problem problem_of(const pg_call *call, int backward) {
  const packed p = packed_sizes(&call->v[2]);
  return (problem){backward, backward || pg_present(call, 1), {p.images, p.tokens, p.heads, p.size}};
}

static int same(const problem *a, const problem *b) {
  return a->backward == b->backward && a->with_lse == b->with_lse && a->size.images == b->size.images &&
         a->size.tokens == b->size.tokens && a->size.heads == b->size.heads && a->size.size == b->size.size;
}

/* The last one that was chosen; earlier ones stay, for graphs that hold their kernels. */
static const solution *find(const problem *p) {
  for (int k = solution_count - 1; k >= 0; k--)
    if (same(&solutions[k].problem, p)) return &solutions[k];
  return NULL;
}

static pg_status add(const solution *s) {
  if (solution_count == solution_room) {
    solution *more = realloc(solutions, (size_t)(solution_room + 16) * sizeof *more);
    if (!more) return pg_error(PG_ERROR_MEMORY, "attention: out of memory");
    solutions = more;
    solution_room += 16;
  }
  solutions[solution_count++] = *s;
  return PG_OK;
}

/* ---- running ---- */

static int64_t round_up(int64_t bytes) {
  return (bytes + CUDNN_WORKSPACE_ALIGNMENT - 1) / CUDNN_WORKSPACE_ALIGNMENT * CUDNN_WORKSPACE_ALIGNMENT;
}

/* The plan's workspace and, behind it, the backward's delta. Scratch comes at multiples of 64 bytes. */
static int64_t scratch_for(const problem *p, int64_t workspace) {
  const int64_t delta = p->backward ? p->size.images * p->size.heads * p->size.tokens * 4 : 0;
  return round_up(workspace) + delta + CUDNN_WORKSPACE_ALIGNMENT;
}

static void *part(const pg_view *qkv, int which) {
  const packed p = packed_sizes(qkv);
  return (char *)qkv->data + which * p.heads * p.size * 2;
}

static pg_status run_cudnn(const pg_call *call, const solution *s) {
  const pg_view *v = call->v, *dqkv = &v[0], *qkv = &v[2];
  char *workspace = (char *)round_up((int64_t)call->scratch);
  float scale = (float)call->f[0], one = 1;
  void *t[ATTENTION_TENSORS] = {NULL};
  for (int k = 0; k < 3; k++) t[ATTENTION_QUERIES + k] = part(qkv, k);
  t[ATTENTION_SCALE] = &scale;
  if (s->problem.backward) {
    for (int k = 0; k < 3; k++) t[ATTENTION_DQUERIES + k] = part(dqkv, k);
    t[ATTENTION_DOUT] = v[1].data, t[ATTENTION_OUT] = v[3].data, t[ATTENTION_LSE] = v[4].data;
    t[ATTENTION_DELTA] = workspace + round_up(s->graph.workspace), t[ATTENTION_ONE] = &one;
  } else {
    t[ATTENTION_OUT] = v[0].data, t[ATTENTION_LSE] = s->problem.with_lse ? v[1].data : NULL;
  }
  return attention_cudnn_run(&s->graph, t, s->graph.workspace ? workspace : NULL, call->stream);
}

/* Eager calls may have views at any address, and planned ones scratch for an earlier choice. */
static int serves(const solution *s, const pg_call *call) {
  uintptr_t bits = 0;
  for (int k = 0; k < call->n; k++)
    if (pg_present(call, k)) bits |= (uintptr_t)call->v[k].data;
  return s && s->graph.plan && bits % CUDNN_TENSOR_ALIGNMENT == 0 && scratch_for(&s->problem, s->graph.workspace) <= call->scratch_bytes;
}

static pg_status run(const pg_call *call, int backward) {
  TRY(backward ? expect_attention_backward(call) : expect_attention(call));
  const problem p = problem_of(call, backward);
  const solution *s = find(&p);
  return serves(s, call) ? run_cudnn(call, s) : run_own(call, backward);
}

/* ---- choosing ---- */

static pg_status asked(int *wish) {
  const char *text = getenv("PERIGEE_ATTENTION");
  *wish = !text || !*text ? EITHER : !strcmp(text, "own") ? OWN : CUDNN;
  PG_EXPECT(*wish != CUDNN || !strcmp(text, "cudnn"), "PERIGEE_ATTENTION is '%s'; expected own or cudnn", text);
  return PG_OK;
}

/* What decides which engines there are. */
static void key_of(const problem *p, char key[KEY_BYTES]) {
  snprintf(key, KEY_BYTES, "%s/%s/cudnn-%zu/bfloat16/%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 "%s",
           p->backward ? "attention_backward" : "attention", pg_gpu_name(), cudnnGetVersion(), p->size.images, p->size.tokens,
           p->size.heads, p->size.size, p->with_lse ? "+lse" : "");
}

/* cuDNN's graph of the problem. PG_ERROR_UNSUPPORTED: it has none. */
static pg_status draw(solution *s, const problem *p) {
  *s = (solution){.problem = *p};
  TRY(cudnn_handle(&s->graph.handle));
  return p->backward ? attention_cudnn_backward(&s->graph, p->size) : attention_cudnn_forward(&s->graph, p->size, p->with_lse);
}

/* Bytes that cuDNN may have: no more than the queries, keys and values in float32. Its backward keeps a map in bfloat16, so
 * from some number of tokens on it is out. */
static int64_t most_workspace(const problem *p) {
  return p->size.images * p->size.tokens * 3 * p->size.heads * p->size.size * 4;
}

/* A solution by an engine. PG_ERROR_UNSUPPORTED: it has no plan, or none in the workspace that there is. */
static pg_status solve(solution *s, const problem *p, const char *engine) {
  pg_status status = draw(s, p);
  if (!status) status = cudnn_plan(&s->graph, engine);
  if (!status && s->graph.workspace > most_workspace(p))
    status = pg_error(PG_ERROR_UNSUPPORTED, "%s: engine %s has a workspace of %" PRId64 " bytes", s->graph.op, engine,
                      s->graph.workspace);
  if (status) cudnn_graph_free(&s->graph);
  snprintf(s->engine, sizeof s->engine, "%s", engine);
  return status;
}

static pg_status engines_for(const problem *p, char engines[ENGINES][CUDNN_ENGINE_TEXT], int *count) {
  solution s;
  *count = 0;
  pg_status status = draw(&s, p);
  if (!status) status = cudnn_engines(&s.graph, engines, ENGINES, count);
  cudnn_graph_free(&s.graph);
  return status == PG_ERROR_UNSUPPORTED ? PG_OK : status;
}

typedef struct candidate {
  pg_call call;
  const solution *solution; /* NULL: our own */
  int backward;
} candidate;

static pg_status run_candidate(const void *data) {
  const candidate *c = data;
  return c->solution ? run_cudnn(&c->call, c->solution) : run_own(&c->call, c->backward);
}

/* Gives a call memory, all in one tensor. NULL where there isn't enough. */
static pg_tensor *furnish(pg_call *call, int64_t scratch) {
  int64_t at[PG_MAX_VIEWS] = {0}, total = scratch;
  for (int k = 0; k < call->n; k++) {
    at[k] = total = round_up(total);
    if (pg_present(call, k)) total += pg_numel(&call->v[k]) * pg_dtype_bytes(call->v[k].dtype);
  }
  pg_tensor *t;
  if (pg_tensor_new(&t, PG_CUDA, PG_PURPOSE_OTHER, PG_UINT8, 1, &total)) return NULL;
  char *base = pg_tensor_info(t)->data;
  if (cudaMemsetAsync(base, 0, (size_t)total, NULL) != cudaSuccess) cudaGetLastError();
  for (int k = 0; k < call->n; k++)
    if (pg_present(call, k)) call->v[k].data = base + at[k];
  call->scratch = base;
  call->scratch_bytes = scratch;
  call->stream = NULL;
  return t;
}

/* The fastest of our own kernels and the engines; those that fail are passed over. *kept: the choice is worth keeping, each
 * candidate having been timed or having no plan. */
static void rank(solution *best, const candidate *own, char engines[ENGINES][CUDNN_ENGINE_TEXT], int count, int *kept) {
  const problem p = best->problem;
  float least, milliseconds;
  int found = pg_milliseconds("attention", run_candidate, own, &least) == PG_OK; /* not of every head size */
  *kept = 1;
  for (int k = 0; k < count; k++) {
    solution s;
    candidate c = *own;
    pg_status status = solve(&s, &p, engines[k]);
    c.solution = &s;
    if (!status) status = pg_milliseconds(s.graph.op, run_candidate, &c, &milliseconds);
    if (status && status != PG_ERROR_UNSUPPORTED) *kept = 0;
    if (!status && (!found || milliseconds < least)) {
      cudnn_graph_free(&best->graph);
      *best = s;
      least = milliseconds;
      found = 1;
    } else {
      cudnn_graph_free(&s.graph);
    }
  }
}

static void pick(solution *best, const pg_call *call, char engines[ENGINES][CUDNN_ENGINE_TEXT], int count, int *kept) {
  candidate own = {.call = *call, .backward = best->problem.backward};
  pg_tensor *memory = count ? furnish(&own.call, scratch_for(&best->problem, most_workspace(&best->problem))) : NULL;
  *kept = count == 0;
  if (memory) rank(best, &own, engines, count, kept);
  pg_tensor_release(memory);
}

/* The first engine that has a plan. */
static pg_status first_of(solution *s, const problem *p, char engines[ENGINES][CUDNN_ENGINE_TEXT], int count) {
  for (int k = 0; k < count; k++) {
    pg_status status = solve(s, p, engines[k]);
    if (status != PG_ERROR_UNSUPPORTED) return status;
  }
  *s = (solution){.problem = *p};
  return PG_OK;
}

/* A kept choice as a solution; one that cuDNN has no plan for any more is made anew. */
static int recall(solution *s, const problem *p, const char *key) {
  const char *text = pg_choice_find(key);
  *s = (solution){.problem = *p};
  if (!text || !strcmp(text, "own")) return text != NULL;
  return !strncmp(text, "cudnn/", 6) && solve(s, p, text + 6) == PG_OK;
}

static pg_status choose(solution *s, const problem *p, const pg_call *call, int wish) {
  char key[KEY_BYTES], engines[ENGINES][CUDNN_ENGINE_TEXT], text[CUDNN_ENGINE_TEXT + 8];
  int count, kept;
  key_of(p, key);
  *s = (solution){.problem = *p};
  if (wish == OWN || (wish == EITHER && recall(s, p, key))) return PG_OK;
  TRY(engines_for(p, engines, &count));
  if (wish == CUDNN) return first_of(s, p, engines, count);
  pick(s, call, engines, count, &kept);
  snprintf(text, sizeof text, "%s%s", s->graph.plan ? "cudnn/" : "own", s->graph.plan ? s->engine : "");
  return kept ? pg_choice_keep(key, text) : PG_OK;
}

/* Is it what choosing again would give? */
static int is_current(const solution *s, int wish) {
  char key[KEY_BYTES];
  if (!s || s->wish != wish) return 0;
  if (wish != EITHER) return 1;
  key_of(&s->problem, key);
  const char *text = pg_choice_find(key);
  return text && (s->graph.plan ? !strncmp(text, "cudnn/", 6) && !strcmp(text + 6, s->engine) : !strcmp(text, "own"));
}

/* Makes the choice for a call that is being planned. */
static pg_status settle(const pg_call *call, int backward) {
  const problem p = problem_of(call, backward);
  solution s;
  int wish;
  TRY(asked(&wish));
  if (is_current(find(&p), wish) || (call->v[0].data && wish == EITHER)) return PG_OK;
  pg_status status = choose(&s, &p, call, wish);
  if (status) {
    char why[512];
    snprintf(why, sizeof why, "%s", pg_last_error());
    return pg_error(status, "attention of %s: %s; PERIGEE_ATTENTION=own does without cuDNN", pg_shape_text(&call->v[2]), why);
  }
  s.wish = wish;
  return add(&s);
}

static int64_t scratch(const pg_call *call, int backward) {
  if ((backward ? expect_attention_backward(call) : expect_attention(call)) || settle(call, backward)) return -1;
  const problem p = problem_of(call, backward);
  const solution *s = find(&p);
  const int64_t own = own_scratch(call, backward), theirs = s && s->graph.plan ? scratch_for(&p, s->graph.workspace) : 0;
  return own > theirs ? own : theirs;
}

#else

static pg_status run(const pg_call *call, int backward) { return run_own(call, backward); }
static int64_t scratch(const pg_call *call, int backward) { return own_scratch(call, backward); }

#endif

pg_status attention_cuda_bfloat16(const pg_call *call) { return run(call, 0); }
pg_status attention_backward_cuda_bfloat16(const pg_call *call) { return run(call, 1); }
int64_t attention_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, 0); }
int64_t attention_backward_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, 1); }
