/* Choosing between kernels of our own and cuDNN's engines, for the ops that have both (attention/cuda.c,
 * convolution/cuda.c).
 *
 * When a program is planned, ours and cuDNN's first few engines are timed, and the fastest is kept as a choice
 * (pg_services in kernel.h): "own", or "cudnn/" and an engine. cuDNN's plan is made then, never while a graph is
 * captured, and lives as long as the process. Eager calls are ours, unless their problem has been planned. Where cuDNN
 * has no plan, or none in the workspace that it may have, the op is ours. PERIGEE_<OP>=own or cudnn asks for one of the
 * two, and cudnn then serves eager calls too, in any workspace. */
#ifndef PERIGEE_KERNELS_CUDA_CUDNN_CHOICE_H
#define PERIGEE_KERNELS_CUDA_CUDNN_CHOICE_H

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_choice.h"
#include "cuda_cudnn.h"

enum { CUDNN_ENGINES = 4, CUDNN_KEY_BYTES = 640 };
enum { CUDNN_EITHER, CUDNN_OURS, CUDNN_THEIRS }; /* what is asked for */

/* An op that both serve. `problem` is what its functions make of a call. */
typedef struct cudnn_rival {
  const char *op, *variable; /* "attention", "PERIGEE_ATTENTION" */
  pg_status (*draw)(cudnn_graph *g, const void *problem);
  pg_status (*run_own)(const pg_call *call, const void *problem);
  pg_status (*run_cudnn)(const cudnn_graph *g, const pg_call *call, const void *problem, void *workspace, void *beside);
} cudnn_rival;

/* One call to be planned or run. */
typedef struct cudnn_contest {
  const cudnn_rival *rival;
  const pg_call *call;
  const void *problem;
  char key[CUDNN_KEY_BYTES]; /* what decides which engines there are */
  int64_t own_scratch;       /* bytes that our kernels need */
  int64_t most_workspace;    /* bytes that a plan may have */
  int64_t beside;            /* bytes of scratch that run_cudnn needs besides */
} cudnn_contest;

/* The choices of this process. A graph without a plan: our own kernels. */
typedef struct cudnn_solution {
  char key[CUDNN_KEY_BYTES];
  int wish; /* as it was then */
  cudnn_graph graph;
  char engine[CUDNN_ENGINE_TEXT];
} cudnn_solution;

static cudnn_solution *cudnn_solutions;
static int cudnn_solution_count, cudnn_solution_room;

/* The last one that was chosen; earlier ones stay, for graphs that hold their kernels. */
static const cudnn_solution *cudnn_find(const char *key) {
  for (int k = cudnn_solution_count - 1; k >= 0; k--)
    if (!strcmp(cudnn_solutions[k].key, key)) return &cudnn_solutions[k];
  return NULL;
}

static pg_status cudnn_add(const cudnn_solution *s) {
  if (cudnn_solution_count == cudnn_solution_room) {
    cudnn_solution *more = realloc(cudnn_solutions, (size_t)(cudnn_solution_room + 16) * sizeof *more);
    if (!more) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", s->graph.op);
    cudnn_solutions = more;
    cudnn_solution_room += 16;
  }
  cudnn_solutions[cudnn_solution_count++] = *s;
  return PG_OK;
}

/* ---- running ---- */

static int64_t cudnn_round_up(int64_t bytes) {
  return pg_round_up(bytes, CUDNN_WORKSPACE_ALIGNMENT);
}

/* The plan's workspace and, behind it, what is needed besides. Scratch comes at multiples of 64 bytes. */
static int64_t cudnn_scratch_for(const cudnn_contest *c, int64_t workspace) {
  return cudnn_round_up(workspace) + c->beside + CUDNN_WORKSPACE_ALIGNMENT;
}

/* ... whoever runs. */
static int64_t cudnn_scratch(const cudnn_contest *c, int64_t workspace) {
  const int64_t theirs = cudnn_scratch_for(c, workspace);
  return theirs > c->own_scratch ? theirs : c->own_scratch;
}

static pg_status cudnn_run_theirs(const cudnn_contest *c, const cudnn_solution *s) {
  char *workspace = (char *)cudnn_round_up((int64_t)c->call->scratch);
  return c->rival->run_cudnn(&s->graph, c->call, c->problem, s->graph.workspace ? workspace : NULL,
                             workspace + cudnn_round_up(s->graph.workspace));
}

/* Eager calls may have views at any address, and planned ones scratch for an earlier choice. */
static int cudnn_serves(const cudnn_contest *c, const cudnn_solution *s) {
  uintptr_t bits = 0;
  for (int k = 0; k < c->call->n; k++) bits |= (uintptr_t)pg_view_at(c->call, k)->data;
  return s && s->graph.plan && bits % CUDNN_TENSOR_ALIGNMENT == 0 &&
         cudnn_scratch_for(c, s->graph.workspace) <= c->call->scratch_bytes;
}

static pg_status cudnn_contest_run(const cudnn_contest *c) {
  const cudnn_solution *s = cudnn_find(c->key);
  const int theirs = cudnn_serves(c, s);
  if (theirs || (s && s->wish == CUDNN_THEIRS)) c->call->services->served(theirs);
  return theirs ? cudnn_run_theirs(c, s) : c->rival->run_own(c->call, c->problem);
}

/* ---- choosing ---- */

static pg_status cudnn_asked(const cudnn_rival *rival, int *wish) {
  const char *text = getenv(rival->variable);
  *wish = !text || !*text ? CUDNN_EITHER : !strcmp(text, "own") ? CUDNN_OURS : CUDNN_THEIRS;
  PG_EXPECT(*wish != CUDNN_THEIRS || !strcmp(text, "cudnn"), "%s is '%s'; expected own or cudnn", rival->variable,
            text);
  return PG_OK;
}

static cudnn_solution cudnn_ours(const cudnn_contest *c) {
  cudnn_solution s = {.graph = {.op = c->rival->op}};
  snprintf(s.key, sizeof s.key, "%s", c->key);
  return s;
}

/* cuDNN's graph of the problem. PG_ERROR_UNSUPPORTED: it has none. */
static pg_status cudnn_draw(cudnn_solution *s, const cudnn_contest *c) {
  *s = cudnn_ours(c);
  TRY(cudnn_handle(&s->graph.handle));
  return c->rival->draw(&s->graph, c->problem);
}

/* A solution by an engine. PG_ERROR_UNSUPPORTED: it has no plan, or none in the workspace that there is, unless nothing
 * but cuDNN is wished. */
static pg_status cudnn_solve(cudnn_solution *s, const cudnn_contest *c, int wish, const char *engine) {
  pg_status status = cudnn_draw(s, c);
  if (!status) status = cudnn_plan(&s->graph, engine);
  if (!status && wish != CUDNN_THEIRS && s->graph.workspace > c->most_workspace)
    status = pg_error(PG_ERROR_UNSUPPORTED, "%s: engine %s has a workspace of %" PRId64 " bytes", s->graph.op, engine,
                      s->graph.workspace);
  if (status) cudnn_graph_free(&s->graph);
  snprintf(s->engine, sizeof s->engine, "%s", engine);
  return status;
}

static pg_status cudnn_engines_for(const cudnn_contest *c, char engines[CUDNN_ENGINES][CUDNN_ENGINE_TEXT], int *count) {
  cudnn_solution s;
  *count = 0;
  pg_status status = cudnn_draw(&s, c);
  if (!status) status = cudnn_engines(&s.graph, engines, CUDNN_ENGINES, count);
  cudnn_graph_free(&s.graph);
  return status == PG_ERROR_UNSUPPORTED ? PG_OK : status;
}

typedef struct cudnn_candidate {
  const cudnn_contest *contest;
  const cudnn_solution *solution; /* NULL: our own */
} cudnn_candidate;

static pg_status cudnn_run_candidate(const void *data) {
  const cudnn_candidate *c = data;
  if (c->solution) return cudnn_run_theirs(c->contest, c->solution);
  return c->contest->rival->run_own(c->contest->call, c->contest->problem);
}

/* Borrows memory for a call's views and scratch; NULL where there isn't enough. */
static void *cudnn_furnish(pg_call *call, int64_t scratch, int64_t *borrowed) {
  int64_t at[PG_MAX_VIEWS] = {0}, total = scratch;
  for (int k = 0; k < call->n; k++) {
    at[k] = total = cudnn_round_up(total);
    const pg_view *v = pg_view_at(call, k);
    if (pg_present(v)) total += pg_numel(v) * pg_dtype_bytes(v->dtype);
  }
  void *memory;
  if (call->services->borrow(&memory, total)) return NULL;
  char *base = memory;
  *borrowed = total;
  pg_fill_randomly(base, total);
  for (int k = 0; k < call->n; k++)
    if (pg_present(pg_view_at(call, k))) call->v[k].data = base + at[k];
  call->scratch = base;
  call->scratch_bytes = scratch;
  call->stream = NULL;
  return memory;
}

/* The fastest of our own kernels and the plans; those that fail are passed over (ours may not serve every shape).
 * *kept: the choice is worth keeping. */
static void cudnn_rank(cudnn_solution *best, const cudnn_contest *c, cudnn_solution *plans, int count, int *kept) {
  cudnn_candidate candidates[1 + CUDNN_ENGINES] = {{c, NULL}};
  float least[1 + CUDNN_ENGINES];
  for (int k = 0; k < count; k++) candidates[1 + k] = (cudnn_candidate){c, &plans[k]};
  pg_time_candidates(c->rival->op, cudnn_run_candidate, candidates, sizeof *candidates, 1 + count, least);
  for (int k = 1; k <= count; k++)
    if (least[k] == INFINITY) *kept = 0;
  const int fastest = pg_least_of(least, 1 + count);
  if (fastest == 0) return;
  const cudnn_solution ours = *best;
  *best = plans[fastest - 1];
  plans[fastest - 1] = ours;
}

/* *kept: each candidate was timed, or has no plan. */
static void cudnn_pick(cudnn_solution *best, const cudnn_contest *c, char engines[CUDNN_ENGINES][CUDNN_ENGINE_TEXT],
                       int count, int *kept) {
  cudnn_solution plans[CUDNN_ENGINES];
  int64_t workspace = 0;
  int made = 0;
  *kept = 1;
  for (int k = 0; k < count; k++) {
    const pg_status status = cudnn_solve(&plans[made], c, CUDNN_EITHER, engines[k]);
    if (status && status != PG_ERROR_UNSUPPORTED) *kept = 0;
    if (status) continue;
    if (plans[made].graph.workspace > workspace) workspace = plans[made].graph.workspace;
    made++;
  }
  if (made) {
    pg_call call = *c->call;
    cudnn_contest furnished = *c;
    furnished.call = &call;
    int64_t borrowed = 0;
    void *memory = cudnn_furnish(&call, cudnn_scratch(c, workspace), &borrowed);
    if (memory) cudnn_rank(best, &furnished, plans, made, kept);
    else *kept = 0;
    call.services->give_back(memory, borrowed);
  }
  for (int k = 0; k < made; k++) cudnn_graph_free(&plans[k].graph);
}

/* The first engine that has a plan. */
static pg_status cudnn_first_of(cudnn_solution *s, const cudnn_contest *c,
                                char engines[CUDNN_ENGINES][CUDNN_ENGINE_TEXT], int count) {
  for (int k = 0; k < count; k++) {
    pg_status status = cudnn_solve(s, c, CUDNN_THEIRS, engines[k]);
    if (status != PG_ERROR_UNSUPPORTED) return status;
  }
  *s = cudnn_ours(c);
  return PG_OK;
}

/* A kept choice as a solution; one that cuDNN has no plan for any more is made again. */
static int cudnn_recall(cudnn_solution *s, const cudnn_contest *c) {
  const char *text = c->call->services->choice_find(c->key);
  *s = cudnn_ours(c);
  if (!text || !strcmp(text, "own")) return text != NULL;
  return !strncmp(text, "cudnn/", 6) && cudnn_solve(s, c, CUDNN_EITHER, text + 6) == PG_OK;
}

static pg_status cudnn_choose(cudnn_solution *s, const cudnn_contest *c, int wish) {
  char engines[CUDNN_ENGINES][CUDNN_ENGINE_TEXT], text[CUDNN_ENGINE_TEXT + 8];
  int count, kept;
  *s = cudnn_ours(c);
  if (wish == CUDNN_OURS || (wish == CUDNN_EITHER && cudnn_recall(s, c))) return PG_OK;
  TRY(cudnn_engines_for(c, engines, &count));
  if (wish == CUDNN_THEIRS) return cudnn_first_of(s, c, engines, count);
  *s = cudnn_ours(c);
  cudnn_pick(s, c, engines, count, &kept);
  snprintf(text, sizeof text, "%s%s", s->graph.plan ? "cudnn/" : "own", s->graph.plan ? s->engine : "");
  return kept ? c->call->services->choice_keep(c->key, text) : PG_OK;
}

/* Is it what choosing again would give? */
static int cudnn_is_current(const cudnn_contest *c, const cudnn_solution *s, int wish) {
  if (!s || s->wish != wish) return 0;
  if (wish != CUDNN_EITHER) return 1;
  const char *text = c->call->services->choice_find(s->key);
  return text && (s->graph.plan ? !strncmp(text, "cudnn/", 6) && !strcmp(text + 6, s->engine) : !strcmp(text, "own"));
}

/* Makes the choice for a call that is being planned. */
static pg_status cudnn_settle(const cudnn_contest *c) {
  cudnn_solution s;
  int wish;
  TRY(cudnn_asked(c->rival, &wish));
  if (cudnn_is_current(c, cudnn_find(c->key), wish) || (pg_view_at(c->call, 0)->data && wish == CUDNN_EITHER))
    return PG_OK;
  pg_status status = cudnn_choose(&s, c, wish);
  if (status) {
    char why[512];
    snprintf(why, sizeof why, "%s", pg_last_error());
    return pg_error(status, "%s of %s: %s; %s=own does without cuDNN", c->rival->op,
                    pg_shape_text(pg_view_at(c->call, 2)), why, c->rival->variable);
  }
  s.wish = wish;
  return cudnn_add(&s);
}

/* Scratch bytes of a call. < 0: failure. */
static int64_t cudnn_contest_scratch(const cudnn_contest *c) {
  if (cudnn_settle(c)) return -1;
  const cudnn_solution *s = cudnn_find(c->key);
  return s && s->graph.plan ? cudnn_scratch(c, s->graph.workspace) : c->own_scratch;
}

#endif
