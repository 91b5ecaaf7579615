/* Choosing cuBLASLt's algorithm for a product (cuda_product.h).
 *
 * It is taken from cuBLASLt's heuristic when a program is planned, the first few timed against each other, and kept as
 * a choice (pg_services in kernel.h): which one runs never depends on a later timing. Those whose sum over the depth
 * depends on the order in which blocks finish are left out. Eager calls of shapes that no plan has met take the first.
 * An activation, its derivative or the bias's gradient is an epilogue only where that is faster than a product with a
 * pass or sums behind it, which it isn't at every size. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matmul/cuda_product.h"

enum { WORKSPACE_BYTES = 32 << 20 /* at most */, CANDIDATES = 8, KEY_BYTES = 320 };

/* Stands for addresses that are not known yet: the heuristic takes their alignment from it. */
#define ANYWHERE ((void *)(uintptr_t)MATMUL_ALIGNMENT)

/* The heuristic's candidates, best first; *count = 0 where cuBLASLt has none. */
static pg_status ask(const product *p, const descriptions *t, size_t workspace,
                     cublasLtMatmulHeuristicResult_t *results, int *count) {
  cublasLtHandle_t handle;
  cublasLtMatmulPreference_t preference;
  const uint32_t alignment = (uint32_t)p->alignment;
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const cublasLtMatmulPreferenceAttributes_t aligned[4] = {
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  *count = 0;
  TRY(matmul_library(&handle));
  LT(cublasLtMatmulPreferenceCreate, &preference);
  cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                               &workspace, sizeof workspace);
  if (!status)
    status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                  sizeof reductions);
  for (int k = 0; k < 4 && !status; k++)
    status = cublasLtMatmulPreferenceSetAttribute(preference, aligned[k], &alignment, sizeof alignment);
  if (!status)
    status = cublasLtMatmulAlgoGetHeuristic(handle, t->operation, t->a, t->b, t->d, t->d, preference, CANDIDATES,
                                            results, count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) *count = 0;
  else TRY(matmul_lt_status("cublasLtMatmulAlgoGetHeuristic", status));
  int kept = 0;
  for (int k = 0; k < *count; k++)
    if (results[k].state == CUBLAS_STATUS_SUCCESS) results[kept++] = results[k];
  *count = kept;
  return PG_OK;
}

/* The work that is timed: a product by an algorithm, and after it what its epilogue lacks. */
typedef struct trial {
  const product *product;
  const descriptions *descriptions;
  const operands *memory;
  const cublasLtMatmulAlgo_t *algorithm;
} trial;

static pg_status try_once(const void *data) {
  const trial *t = data;
  const product *p = t->product;
  operands o = *t->memory;
  const int pass = !matmul_is_fused(p) && matmul_has_pass(p);
  void *out = o.d;
  if (pass && pg_present(p->v.pre)) o.d = o.aux;
  TRY(matmul_multiply(t->descriptions, &o, t->algorithm, NULL));
  if (pass) TRY(matmul_pass(p, p->rows * p->columns * p->batches, out, o.d, o.aux, NULL));
  if (!matmul_lacks_sums(p)) return PG_OK;
  pg_call sums = matmul_sums(p, o.bias, pg_present(p->v.column_sums) ? out : o.b);
  sums.scratch = o.workspace, sums.scratch_bytes = (int64_t)o.workspace_bytes, sums.stream = NULL;
  return matmul_add_up(&sums, p->dtype);
}

/* Moves the fastest candidate to the front; *least: its milliseconds. One that fails when run is passed over. */
static pg_status rank(const product *p, const descriptions *t, const operands *o,
                      cublasLtMatmulHeuristicResult_t *results, int count, float *least) {
  trial trials[CANDIDATES];
  float milliseconds[CANDIDATES];
  for (int k = 0; k < count; k++) trials[k] = (trial){p, t, o, &results[k].algo};
  TRY(pg_time_candidates("cuBLASLt", try_once, trials, sizeof *trials, count, milliseconds));
  const int best = pg_least_of(milliseconds, count);
  results[0] = results[best];
  *least = milliseconds[best];
  return PG_OK;
}

/* Borrows memory to time a product in; NULL where there isn't enough. */
static void *rehearsal(const product *p, operands *o, int64_t *borrowed) {
  const int64_t size = p->dtype == PG_FLOAT32 ? 4 : 2;
  const int64_t batches = p->batches;
  const int64_t longer = p->rows > p->columns ? p->rows : p->columns; /* of a bias and a bias's gradient */
  const int64_t bytes[5] = {p->rows * p->depth * (p->stride_a ? batches : 1) * size,
                            p->columns * p->depth * (p->stride_b ? batches : 1) * size,
                            p->rows * p->columns * batches * size,
                            matmul_has_aux(p) || matmul_has_pass(p) ? p->rows * p->columns * batches * size : 0,
                            longer * size};
  int64_t at[5], total = WORKSPACE_BYTES;
  for (int k = 0; k < 5; k++) {
    at[k] = total;
    total += pg_round_up(bytes[k], 256);
  }
  void *memory;
  if (p->call->services->borrow(&memory, total)) return NULL;
  char *base = memory;
  *borrowed = total;
  pg_fill_randomly(base, total);
  *o = (operands){.a = base + at[0], .b = base + at[1], .d = base + at[2], .aux = base + at[3], .bias = base + at[4],
                  .workspace = base, .workspace_bytes = WORKSPACE_BYTES};
  return memory;
}

/* Decides which algorithms there are: GPU, cuBLASLt's version, shape, layouts, arithmetic, epilogue, alignment. */
static void key_of(const product *p, char key[KEY_BYTES]) {
  const char *arithmetic = p->dtype == PG_BFLOAT16 ? "bfloat16" : p->compute == CUBLAS_COMPUTE_32F ? "float32" : "tf32";
  snprintf(key, KEY_BYTES,
           "matmul/%s/%zu/%s/%" PRId64 "x%" PRId64 "x%" PRId64 "%s%s/%" PRId64 "+%" PRId64 "+%" PRId64 "/%d/%d",
           pg_gpu_name(), cublasLtGetVersion(), arithmetic, p->columns, p->rows, p->depth, p->transpose_b ? "T" : "N",
           p->transpose_a ? "T" : "N", p->batches, p->stride_b, p->stride_a, (int)p->epilogue, p->alignment);
}

/* An algorithm as text: its workspace's bytes, and its own in hexadecimal. "none": there is none. */
static pg_status keep(const pg_services *services, const char *key, const choice *c) {
  char text[32 + 2 * sizeof c->algorithm];
  if (c->none) return services->choice_keep(key, "none");
  int used = snprintf(text, sizeof text, "%zu:", c->workspace);
  const unsigned char *bytes = (const unsigned char *)&c->algorithm;
  for (size_t k = 0; k < sizeof c->algorithm; k++)
    used += snprintf(text + used, sizeof text - (size_t)used, "%02x", bytes[k]);
  return services->choice_keep(key, text);
}

static int recall_key(const pg_services *services, const char *key, choice *c) {
  const char *text = services->choice_find(key);
  memset(c, 0, sizeof *c);
  if (!text) return 0;
  if (!strcmp(text, "none")) return c->none = 1;
  char *end;
  c->workspace = strtoull(text, &end, 10);
  if (*end != ':' || strlen(end + 1) != 2 * sizeof c->algorithm || c->workspace > WORKSPACE_BYTES) return 0;
  unsigned char *bytes = (unsigned char *)&c->algorithm;
  for (size_t k = 0; k < sizeof c->algorithm; k++) {
    unsigned byte;
    if (sscanf(end + 1 + 2 * k, "%2x", &byte) != 1) return 0;
    bytes[k] = (unsigned char)byte;
  }
  return 1;
}

int matmul_recall(const product *p, choice *c) {
  char key[KEY_BYTES];
  key_of(p, key);
  return recall_key(p->call->services, key, c);
}

/* A choice that came from a file is only as good as cuBLASLt says. */
static int still_fits(const descriptions *t, choice *c) {
  cublasLtHandle_t handle;
  cublasLtMatmulHeuristicResult_t result;
  if (c->none) return 1;
  if (matmul_library(&handle) ||
      cublasLtMatmulAlgoCheck(handle, t->operation, t->a, t->b, t->d, t->d, &c->algorithm, &result))
    return 0;
  return result.workspaceSize <= c->workspace;
}

/* Is the fused product by `algorithm` slower than one whose epilogue does less, with the rest behind it? */
static pg_status is_faster_apart(const product *p, const descriptions *t, const operands *memory,
                                 const cublasLtMatmulAlgo_t *algorithm, int *faster) {
  product less;
  descriptions d;
  choice c = {.none = 1};
  float milliseconds[2];
  *faster = 0;
  for (int level = p->level - 1; c.none && level >= MATMUL_PLAIN; level = less.level - 1) {
    less = matmul_describe(p->call, p->dtype, level);
    TRY(matmul_choose(&less, &c));
  }
  if (c.none || matmul_sums_scratch(&less) > (int64_t)memory->workspace_bytes) return PG_OK;
  const trial trials[2] = {{p, t, memory, algorithm}, {&less, &d, memory, &c.algorithm}};
  pg_status status = matmul_build(&d, &less);
  if (!status) status = matmul_aim(&d, &less, memory);
  if (!status) status = pg_time_candidates("cuBLASLt", try_once, trials, sizeof *trials, 2, milliseconds);
  matmul_destroy(&d);
  *faster = !status && milliseconds[1] < milliseconds[0];
  return status;
}

/* The best candidate; none where the epilogue is one to be done without. t is aimed at ANYWHERE. */
static pg_status pick(const product *p, const descriptions *t, choice *c) {
  const int fused = matmul_is_fused(p);
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  memset(results, 0, sizeof results);
  int count, apart = 0;
  float least;
  operands o;
  TRY(ask(p, t, WORKSPACE_BYTES, results, &count));
  int64_t borrowed = 0;
  void *memory = rehearsal(p, &o, &borrowed);
  pg_status status = memory ? matmul_aim(t, p, &o) : PG_OK;
  if (!status && memory && count > 1) status = rank(p, t, &o, results, count, &least);
  if (!status && memory && count && fused) status = is_faster_apart(p, t, &o, &results[0].algo, &apart);
  p->call->services->give_back(memory, borrowed);
  if (status) return status;
  *c = (choice){.none = count == 0 || apart};
  if (!c->none) c->algorithm = results[0].algo, c->workspace = results[0].workspaceSize;
  return PG_OK;
}

/* The choice for a product that is being planned. */
pg_status matmul_choose(const product *p, choice *c) {
  char key[KEY_BYTES];
  descriptions t;
  key_of(p, key);
  const operands unknown = {.bias = ANYWHERE, .aux = ANYWHERE};
  pg_status status = matmul_build(&t, p);
  if (!status) status = matmul_aim(&t, p, &unknown);
  if (!status && !(recall_key(p->call->services, key, c) && still_fits(&t, c))) {
    status = pick(p, &t, c);
    if (!status) status = keep(p->call->services, key, c);
  }
  matmul_destroy(&t);
  return status;
}

/* The algorithm for a call: as planned; for addresses that no plan has met, the heuristic's first. */
pg_status matmul_settle(const product *p, const descriptions *t, const operands *o, choice *c) {
  if (matmul_recall(p, c) && (c->none || c->workspace <= o->workspace_bytes)) return PG_OK;
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  memset(results, 0, sizeof results);
  int count;
  TRY(matmul_aim(t, p, o));
  TRY(ask(p, t, o->workspace_bytes, results, &count));
  *c = (choice){.none = count == 0};
  if (count) c->algorithm = results[0].algo, c->workspace = results[0].workspaceSize;
  return PG_OK;
}
