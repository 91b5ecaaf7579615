/* Matrix multiplication on GPUs: cuBLASLt, with bias, GELU (tanh), its derivative and the bias's gradient as its epilogues;
 * the rest of the contract by a pass over the product (epilogue.h), or over a for its sums (reduce.h).
 *
 * cuBLASLt counts by columns: a row-major [M,N] is its N×M. So D = op(A)·op(B) there has the call's b as A and its a as B.
 *
 * The algorithm for a shape is taken from cuBLASLt's heuristic when a program is planned, the first few timed against each
 * other, and kept as a choice (pg_services in kernel.h): which one runs never depends on a later timing. Those whose sum over the
 * depth depends on the order in which blocks finish are left out. Eager calls of shapes that no plan has met take the first.
 * The bias's gradient is an epilogue only where that is faster than a product and the sums apart, which it isn't at every size. */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_entries.h"
#include "cuda_choice.h"
#include "matmul/check.h"
#include "matmul/epilogue.h"
#include "matmul/matmul.h"
#include "reduce/reduce.h"

enum {
  ALIGNMENT = 16,              /* bytes that planned addresses are multiples of */
  WORKSPACE_ALIGNMENT = 256,   /* what cuBLASLt asks of its workspace; the plan's is 64 */
  WORKSPACE_BYTES = 32 << 20,  /* at most */
  EAGER_WORKSPACE = 4 << 20,
  CANDIDATES = 8,
  KEY_BYTES = 320
};

/* Stands for addresses that are not known yet: the heuristic takes their alignment from it. */
#define ANYWHERE ((void *)(uintptr_t)ALIGNMENT)

/* A call as cuBLASLt sees it: `batches` products at even distances, `outer` such groups. */
typedef struct product {
  int dtype; /* PG_FLOAT32 or PG_BFLOAT16 */
  cublasComputeType_t compute;
  int transpose_a, transpose_b;
  int64_t rows, columns, depth; /* D is rows × columns */
  int64_t batches, stride_a, stride_b;
  int64_t outer;
  int outer_dims;
  cublasLtEpilogue_t epilogue;
  int alignment;
  const pg_call *call;
} product;

typedef struct choice {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace;
  int none; /* cuBLASLt has none for this product */
} choice;

/* ---- statuses ---- */

static pg_status lt_status(const char *function, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return PG_OK;
  return pg_error(PG_ERROR_DEVICE, "%s: %s", function, cublasLtGetStatusName(status));
}

#define LT(function, ...) \
  do { \
    pg_status status_ = lt_status(#function, function(__VA_ARGS__)); \
    if (status_) return status_; \
  } while (0)

static pg_status library(cublasLtHandle_t *handle) {
  static cublasLtHandle_t made;
  if (!made) LT(cublasLtCreate, &made);
  *handle = made;
  return PG_OK;
}

/* ---- from the contract to a product ---- */

/* Elements from one matrix to the next along batch dimension d of out; 0 where the tensor is broadcast. */
static int64_t batch_stride(const pg_view *out, const pg_view *v, int d) {
  int own = d - (out->ndim - v->ndim);
  return own < 0 || v->shape[own] == 1 ? 0 : v->stride[own];
}

/* Joins batch dimensions from the last to the first, as long as both operands advance evenly. */
static void join_batches(product *p) {
  const pg_view *out = &p->call->v[MATMUL_OUT], *a = &p->call->v[MATMUL_B], *b = &p->call->v[MATMUL_A];
  int d = out->ndim - 2;
  p->batches = p->outer = 1;
  for (; d > 0; d--) {
    int64_t size = out->shape[d - 1], next_a = batch_stride(out, a, d - 1), next_b = batch_stride(out, b, d - 1);
    if (size == 1) continue;
    if (p->batches > 1 && (next_a != p->stride_a * p->batches || next_b != p->stride_b * p->batches)) break;
    if (p->batches == 1) p->stride_a = next_a, p->stride_b = next_b;
    p->batches *= size;
  }
  p->outer_dims = d;
  for (; d > 0; d--) p->outer *= out->shape[d - 1];
}

/* What every address that cuBLASLt gets is a multiple of: those of the call, and the groups' places from there. */
static int alignment_of(const product *p) {
  const pg_call *call = p->call;
  const int64_t size = p->dtype == PG_FLOAT32 ? 4 : 2;
  uintptr_t bits = ALIGNMENT;
  for (int k = 0; k < call->n; k++)
    if (pg_present(call, k)) bits |= (uintptr_t)call->v[k].data;
  if (p->outer > 1) bits |= (uintptr_t)(p->batches * p->rows * p->columns * size);
  for (int d = 0; d < p->outer_dims; d++)
    for (int k = MATMUL_A; k <= MATMUL_B; k++) bits |= (uintptr_t)(batch_stride(&call->v[MATMUL_OUT], &call->v[k], d) * size);
  return (int)(bits & (~bits + 1));
}

/* The epilogue of cuBLASLt that does it all, or the one before a pass of our own. */
static cublasLtEpilogue_t epilogue_of(const product *p, int fused) {
  const int bias = pg_present(p->call, MATMUL_BIAS), pre = pg_present(p->call, MATMUL_PRE);
  const int64_t activation = p->call->i[2];
  const cublasLtEpilogue_t plain = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  const int saves = p->rows % 8 == 0 && p->batches == 1 && p->outer == 1 && p->alignment >= 16; /* what its aux asks for */
  if (!fused) return plain;
  if (pg_present(p->call, MATMUL_SUMS)) return CUBLASLT_EPILOGUE_BGRADB;
  if (activation == ACTIVATION_gelu_tanh && !pre) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  if (activation == ACTIVATION_gelu_tanh && saves) return bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (activation == ACTIVATION_DERIVATIVE + ACTIVATION_gelu_tanh && saves && !bias) return CUBLASLT_EPILOGUE_DGELU;
  return plain;
}

static int is_fused(const product *p) {
  return p->epilogue != CUBLASLT_EPILOGUE_BIAS && p->epilogue != CUBLASLT_EPILOGUE_DEFAULT;
}
/* A bias, or its gradient. */
static int has_bias(const product *p) {
  return p->epilogue == CUBLASLT_EPILOGUE_BIAS || p->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS ||
         p->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || p->epilogue == CUBLASLT_EPILOGUE_BGRADB;
}
static int has_aux(const product *p) {
  return p->epilogue == CUBLASLT_EPILOGUE_GELU_AUX || p->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
         p->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

static product describe(const pg_call *call, int dtype, int fused) {
  const pg_view *out = &call->v[MATMUL_OUT], *a = &call->v[MATMUL_A];
  product p = {.dtype = dtype, .call = call, .transpose_a = call->i[1] != 0, .transpose_b = call->i[0] != 0};
  p.compute = dtype == PG_FLOAT32 && call->services->tf32() ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  p.rows = out->shape[out->ndim - 1];
  p.columns = out->shape[out->ndim - 2];
  p.depth = a->shape[a->ndim - (p.transpose_b ? 2 : 1)];
  join_batches(&p);
  p.alignment = alignment_of(&p);
  if (!p.transpose_b && p.outer == 1 && p.batches > 1 && p.stride_a == 0 && p.stride_b == p.columns * p.depth) {
    p.columns *= p.batches; /* one weight for all: one long matrix */
    p.batches = 1;
  }
  if (p.batches == 1) p.stride_a = p.stride_b = 0;
  p.epilogue = epilogue_of(&p, fused);
  return p;
}

/* ---- cuBLASLt's descriptions of it ---- */

typedef struct descriptions {
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t a, b, d;
} descriptions;

/* Device memory of one group of the batch. */
typedef struct operands {
  const void *a, *b;
  void *d, *bias, *aux, *workspace;
  size_t workspace_bytes;
} operands;

static void destroy(descriptions *t) {
  if (t->operation) cublasLtMatmulDescDestroy(t->operation);
  if (t->a) cublasLtMatrixLayoutDestroy(t->a);
  if (t->b) cublasLtMatrixLayoutDestroy(t->b);
  if (t->d) cublasLtMatrixLayoutDestroy(t->d);
  *t = (descriptions){0};
}

static pg_status layout(cublasLtMatrixLayout_t *out, const product *p, int64_t rows, int64_t columns, int64_t stride) {
  LT(cublasLtMatrixLayoutCreate, out, p->dtype == PG_FLOAT32 ? CUDA_R_32F : CUDA_R_16BF, (uint64_t)rows, (uint64_t)columns,
     rows);
  if (p->batches == 1) return PG_OK;
  int32_t count = (int32_t)p->batches;
  LT(cublasLtMatrixLayoutSetAttribute, *out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
  LT(cublasLtMatrixLayoutSetAttribute, *out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
  return PG_OK;
}

static pg_status build(descriptions *t, const product *p) {
  *t = (descriptions){0};
  LT(cublasLtMatmulDescCreate, &t->operation, p->compute, CUDA_R_32F);
  const int32_t transpose_a = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, transpose_b = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const uint32_t epilogue = p->epilogue;
  LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose_a, sizeof transpose_a);
  LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_TRANSB, &transpose_b, sizeof transpose_b);
  LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  if (has_aux(p))
    LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &p->rows, sizeof p->rows);
  TRY(p->transpose_a ? layout(&t->a, p, p->depth, p->rows, p->stride_a) : layout(&t->a, p, p->rows, p->depth, p->stride_a));
  TRY(p->transpose_b ? layout(&t->b, p, p->columns, p->depth, p->stride_b)
                     : layout(&t->b, p, p->depth, p->columns, p->stride_b));
  return layout(&t->d, p, p->rows, p->columns, p->rows * p->columns);
}

static pg_status aim(const descriptions *t, const product *p, const operands *o) {
  if (has_bias(p))
    LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias, sizeof o->bias);
  if (has_aux(p))
    LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &o->aux, sizeof o->aux);
  return PG_OK;
}

static pg_status multiply(const descriptions *t, const operands *o, const cublasLtMatmulAlgo_t *algorithm, cudaStream_t stream) {
  cublasLtHandle_t handle;
  const float one = 1, zero = 0;
  TRY(library(&handle));
  LT(cublasLtMatmul, handle, t->operation, &one, o->a, t->a, o->b, t->b, &zero, o->d, t->d, o->d, t->d, algorithm, o->workspace,
     o->workspace_bytes, stream);
  return PG_OK;
}

/* ---- choosing an algorithm ---- */

/* The heuristic's candidates, best first; *count = 0 where cuBLASLt has none. */
static pg_status ask(const product *p, const descriptions *t, size_t workspace, cublasLtMatmulHeuristicResult_t *results,
                     int *count) {
  cublasLtHandle_t handle;
  cublasLtMatmulPreference_t preference;
  const uint32_t alignment = (uint32_t)p->alignment;
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const cublasLtMatmulPreferenceAttributes_t aligned[4] = {
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  *count = 0;
  TRY(library(&handle));
  LT(cublasLtMatmulPreferenceCreate, &preference);
  cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                               sizeof workspace);
  if (!status)
    status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                  sizeof reductions);
  for (int k = 0; k < 4 && !status; k++)
    status = cublasLtMatmulPreferenceSetAttribute(preference, aligned[k], &alignment, sizeof alignment);
  if (!status)
    status = cublasLtMatmulAlgoGetHeuristic(handle, t->operation, t->a, t->b, t->d, t->d, preference, CANDIDATES, results, count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) *count = 0;
  else TRY(lt_status("cublasLtMatmulAlgoGetHeuristic", status));
  int kept = 0;
  for (int k = 0; k < *count; k++)
    if (results[k].state == CUBLAS_STATUS_SUCCESS) results[kept++] = results[k];
  *count = kept;
  return PG_OK;
}

/* The sums of a call apart from its product, as a call of reduce. */
static pg_call matmul_sums(const pg_call *call) {
  pg_call sums = {.n = 2, .scratch = call->scratch, .scratch_bytes = call->scratch_bytes, .stream = call->stream};
  sums.v[0] = call->v[MATMUL_SUMS];
  sums.v[1] = call->v[MATMUL_A];
  sums.i[0] = PG_REDUCE_sum;
  sums.i[1] = 1; /* over the first dimension */
  return sums;
}

static pg_status add_up(const pg_call *sums, int dtype) {
  return dtype == PG_FLOAT32 ? reduce_cuda_float32(sums) : reduce_cuda_bfloat16(sums);
}

/* What is timed: a product by an algorithm, and after it the sums, or NULL. */
typedef struct trial {
  const descriptions *product;
  const operands *memory;
  const cublasLtMatmulAlgo_t *algorithm;
  const pg_call *sums;
  int dtype;
} trial;

static pg_status try_once(const void *data) {
  const trial *t = data;
  TRY(multiply(t->product, t->memory, t->algorithm, NULL));
  return t->sums ? add_up(t->sums, t->dtype) : PG_OK;
}

/* Moves the fastest candidate to the front; *least: its milliseconds. One that fails when run is passed over. */
static pg_status rank(const descriptions *t, const operands *o, int dtype, cublasLtMatmulHeuristicResult_t *results, int count,
                      float *least) {
  pg_status status = PG_OK;
  int best = -1;
  for (int k = 0; k < count; k++) {
    float milliseconds;
    const trial candidate = {t, o, &results[k].algo, NULL, dtype};
    pg_status one = pg_milliseconds("cuBLASLt", try_once, &candidate, &milliseconds);
    if (one) status = one;
    else if (best < 0 || milliseconds < *least) best = k, *least = milliseconds;
  }
  if (best < 0) return status;
  results[0] = results[best];
  return PG_OK;
}

/* Borrows memory to time a product in; NULL where there isn't enough. */
static void *rehearsal(const product *p, operands *o, int64_t *borrowed) {
  const int64_t size = p->dtype == PG_FLOAT32 ? 4 : 2;
  const int64_t batches = p->batches;
  const int64_t longer = p->rows > p->columns ? p->rows : p->columns; /* of a bias and a bias's gradient */
  const int64_t bytes[5] = {p->rows * p->depth * (p->stride_a ? batches : 1) * size,
                            p->columns * p->depth * (p->stride_b ? batches : 1) * size, p->rows * p->columns * batches * size,
                            has_aux(p) ? p->rows * p->columns * size : 0, longer * size};
  int64_t at[5], total = WORKSPACE_BYTES;
  for (int k = 0; k < 5; k++) {
    at[k] = total;
    total += (bytes[k] + 255) / 256 * 256;
  }
  void *memory;
  if (p->call->services->borrow(&memory, total)) return NULL;
  char *base = memory;
  *borrowed = total;
  if (cudaMemsetAsync(base, 0, (size_t)total, NULL) != cudaSuccess) cudaGetLastError();
  *o = (operands){.a = base + at[0], .b = base + at[1], .d = base + at[2], .aux = base + at[3], .bias = base + at[4],
                  .workspace = base, .workspace_bytes = WORKSPACE_BYTES};
  return memory;
}

static int64_t scratch_of_sums(const pg_call *call, int dtype) {
  if (!pg_present(call, MATMUL_SUMS)) return 0;
  const pg_call sums = matmul_sums(call);
  return dtype == PG_FLOAT32 ? reduce_scratch_cuda_float32(&sums) : reduce_scratch_cuda_bfloat16(&sums);
}

/* What decides which algorithms there are: GPU, cuBLASLt's version, shape, layouts, arithmetic, epilogue, alignment. */
static void key_of(const product *p, char key[KEY_BYTES]) {
  const char *arithmetic = p->dtype == PG_BFLOAT16 ? "bfloat16" : p->compute == CUBLAS_COMPUTE_32F ? "float32" : "tf32";
  snprintf(key, KEY_BYTES, "matmul/%s/%zu/%s/%" PRId64 "x%" PRId64 "x%" PRId64 "%s%s/%" PRId64 "+%" PRId64 "+%" PRId64 "/%d/%d",
           pg_gpu_name(), cublasLtGetVersion(), arithmetic, p->columns, p->rows, p->depth, p->transpose_b ? "T" : "N",
           p->transpose_a ? "T" : "N", p->batches, p->stride_b, p->stride_a, (int)p->epilogue, p->alignment);
}

/* An algorithm as text: its workspace's bytes, and its own in hexadecimal. "none": there is none. */
static pg_status keep(const pg_services *services, const char *key, const choice *c) {
  char text[32 + 2 * sizeof c->algorithm];
  if (c->none) return services->choice_keep(key, "none");
  int used = snprintf(text, sizeof text, "%zu:", c->workspace);
  const unsigned char *bytes = (const unsigned char *)&c->algorithm;
  for (size_t k = 0; k < sizeof c->algorithm; k++) used += snprintf(text + used, sizeof text - (size_t)used, "%02x", bytes[k]);
  return services->choice_keep(key, text);
}

static int recall(const pg_services *services, const char *key, choice *c) {
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

/* A choice that came from a file is only as good as cuBLASLt says. */
static int still_fits(const descriptions *t, choice *c) {
  cublasLtHandle_t handle;
  cublasLtMatmulHeuristicResult_t result;
  if (c->none) return 1;
  if (library(&handle) || cublasLtMatmulAlgoCheck(handle, t->operation, t->a, t->b, t->d, t->d, &c->algorithm, &result)) return 0;
  return result.workspaceSize <= c->workspace;
}

static pg_status choose(const product *p, choice *c);

/* Milliseconds of the plain product of a call with sums, and of the sums after it; INFINITY where cuBLASLt has no such
 * product. */
static pg_status time_apart(const product *p, const operands *memory, float *milliseconds) {
  const product plain = describe(p->call, p->dtype, 0);
  pg_call sums = matmul_sums(p->call);
  sums.v[0].data = memory->bias;
  sums.v[1].data = (void *)(uintptr_t)memory->b;
  sums.scratch = memory->workspace, sums.scratch_bytes = (int64_t)memory->workspace_bytes;
  descriptions d;
  choice c;
  TRY(choose(&plain, &c));
  *milliseconds = INFINITY;
  if (c.none || scratch_of_sums(p->call, p->dtype) > sums.scratch_bytes) return PG_OK;
  const trial t = {&d, memory, &c.algorithm, &sums, p->dtype};
  pg_status status = build(&d, &plain);
  if (!status) status = pg_milliseconds("cuBLASLt", try_once, &t, milliseconds);
  destroy(&d);
  return status;
}

/* The best candidate; none where the epilogue is one to be done without. t is aimed at ANYWHERE. */
static pg_status pick(const product *p, const descriptions *t, choice *c) {
  const int sums = p->epilogue == CUBLASLT_EPILOGUE_BGRADB;
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  memset(results, 0, sizeof results);
  int count;
  float fused = 0, apart = 0;
  operands o;
  TRY(ask(p, t, WORKSPACE_BYTES, results, &count));
  int64_t borrowed = 0;
  void *memory = rehearsal(p, &o, &borrowed);
  pg_status status = memory ? aim(t, p, &o) : PG_OK;
  if (!status && memory && count > (sums ? 0 : 1)) status = rank(t, &o, p->dtype, results, count, &fused);
  if (!status && memory && count && sums) status = time_apart(p, &o, &apart);
  p->call->services->give_back(memory, borrowed);
  if (status) return status;
  *c = (choice){.none = count == 0 || (sums && !(fused < apart))};
  if (!c->none) c->algorithm = results[0].algo, c->workspace = results[0].workspaceSize;
  return PG_OK;
}

/* The choice for a product that is being planned. */
static pg_status choose(const product *p, choice *c) {
  char key[KEY_BYTES];
  descriptions t;
  key_of(p, key);
  const operands unknown = {.bias = ANYWHERE, .aux = ANYWHERE};
  pg_status status = build(&t, p);
  if (!status) status = aim(&t, p, &unknown);
  if (!status && !(recall(p->call->services, key, c) && still_fits(&t, c))) {
    status = pick(p, &t, c);
    if (!status) status = keep(p->call->services, key, c);
  }
  destroy(&t);
  return status;
}

/* ---- running ---- */

static void *data_of(const pg_call *call, int k) { return pg_present(call, k) ? call->v[k].data : NULL; }

/* Does cuBLASLt write what the pass reads, elsewhere than to out? Where the product itself is wanted, there. */
static void *product_place(const product *p) {
  void *pre = data_of(p->call, MATMUL_PRE);
  return is_fused(p) || !pre ? p->call->v[MATMUL_OUT].data : pre;
}

static pg_status pass_over(const product *p, const void *sums) {
  const pg_call *call = p->call;
  const pg_view *out = &call->v[MATMUL_OUT];
  const int64_t columns = out->shape[out->ndim - 1];
  matmul_epilogue e = {.rows = pg_numel(out) / columns, .columns = columns, .out = out->data, .product = sums,
                       .aux = data_of(call, MATMUL_AUX), .activation = (int)call->i[2]};
  if (!sums) e.bias = data_of(call, MATMUL_BIAS), e.pre = data_of(call, MATMUL_PRE);
  return p->dtype == PG_FLOAT32 ? matmul_epilogue_cuda_float32(&e, call->stream) : matmul_epilogue_cuda_bfloat16(&e, call->stream);
}

static operands operands_of(const product *p, int64_t group) {
  const pg_call *call = p->call;
  const pg_view *out = &call->v[MATMUL_OUT];
  const int64_t size = p->dtype == PG_FLOAT32 ? 4 : 2, number = group;
  int64_t a = 0, b = 0;
  for (int d = p->outer_dims - 1; d >= 0; d--) {
    a += group % out->shape[d] * batch_stride(out, &call->v[MATMUL_B], d);
    b += group % out->shape[d] * batch_stride(out, &call->v[MATMUL_A], d);
    group /= out->shape[d];
  }
  const uintptr_t scratch = (uintptr_t)call->scratch;
  const uintptr_t workspace = (scratch + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
  const int64_t room = call->scratch_bytes - (int64_t)(workspace - scratch);
  return (operands){
    .a = (const char *)call->v[MATMUL_B].data + a * size,
    .b = (const char *)call->v[MATMUL_A].data + b * size,
    .bias = data_of(call, p->epilogue == CUBLASLT_EPILOGUE_BGRADB ? MATMUL_SUMS : MATMUL_BIAS),
    .d = (char *)product_place(p) + number * p->batches * p->rows * p->columns * size,
    .aux = data_of(call, call->i[2] > ACTIVATION_DERIVATIVE ? MATMUL_AUX : MATMUL_PRE),
    .workspace = scratch && room > 0 ? (void *)workspace : NULL,
    .workspace_bytes = scratch && room > 0 ? (size_t)room : 0,
  };
}

/* The algorithm for a call: as planned; for addresses that no plan has met, the heuristic's first. */
static pg_status settle(const product *p, const descriptions *t, const operands *o, choice *c) {
  char key[KEY_BYTES];
  key_of(p, key);
  if (recall(p->call->services, key, c) && (c->none || c->workspace <= o->workspace_bytes)) return PG_OK;
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  memset(results, 0, sizeof results);
  int count;
  TRY(aim(t, p, o));
  TRY(ask(p, t, o->workspace_bytes, results, &count));
  *c = (choice){.none = count == 0};
  if (count) c->algorithm = results[0].algo, c->workspace = results[0].workspaceSize;
  return PG_OK;
}

static pg_status run_product(const product *p, int *none) {
  descriptions t;
  choice c;
  operands o = operands_of(p, 0);
  pg_status status = build(&t, p);
  if (!status) status = settle(p, &t, &o, &c);
  *none = !status && c.none;
  for (int64_t group = 0; group < p->outer && !status && !*none; group++) {
    o = operands_of(p, group);
    status = aim(&t, p, &o);
    if (!status) status = multiply(&t, &o, &c.algorithm, p->call->stream);
  }
  destroy(&t);
  return status;
}

static pg_status sums_apart(const pg_call *call, int dtype) {
  if (!pg_present(call, MATMUL_SUMS)) return PG_OK;
  const pg_call sums = matmul_sums(call);
  return add_up(&sums, dtype);
}

static pg_status run(const pg_call *call, int dtype) {
  TRY(matmul_check(call));
  if (pg_numel(&call->v[MATMUL_OUT]) == 0) return PG_OK;
  int none = 1;
  product p = describe(call, dtype, 1);
  if (p.depth == 0) {
    TRY(pass_over(&p, NULL));
    return sums_apart(call, dtype);
  }
  TRY(run_product(&p, &none));
  if (none && is_fused(&p)) {
    p = describe(call, dtype, 0);
    TRY(run_product(&p, &none));
  }
  if (none) return pg_error(PG_ERROR_UNSUPPORTED, "matmul: cuBLASLt has no algorithm for a %s, b %s",
                            pg_shape_text(&call->v[MATMUL_A]), pg_shape_text(&call->v[MATMUL_B]));
  if (is_fused(&p)) return PG_OK;
  if (call->i[2] != ACTIVATION_NONE || pg_present(call, MATMUL_PRE)) TRY(pass_over(&p, product_place(&p)));
  return sums_apart(call, dtype);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t scratch(const pg_call *call, int dtype) {
  if (matmul_check(call)) return -1;
  if (pg_numel(&call->v[MATMUL_OUT]) == 0) return 0;
  const int64_t sums = scratch_of_sums(call, dtype);
  int eager = call->v[MATMUL_OUT].data != NULL;
  for (int fused = 1; fused >= 0; fused--) {
    product p = describe(call, dtype, fused);
    choice c;
    char key[KEY_BYTES];
    if (p.depth == 0) return sums;
    key_of(&p, key);
    if (eager && !recall(call->services, key, &c)) return larger(EAGER_WORKSPACE, sums);
    if (!eager && choose(&p, &c)) return -1;
    const int64_t workspace = c.workspace ? (int64_t)c.workspace + WORKSPACE_ALIGNMENT : 0;
    if (!is_fused(&p)) return larger(workspace, sums);
    if (!c.none) return workspace;
  }
  return sums;
}

pg_status matmul_cuda_float32(const pg_call *call) { return run(call, PG_FLOAT32); }
pg_status matmul_cuda_bfloat16(const pg_call *call) { return run(call, PG_BFLOAT16); }
int64_t matmul_scratch_cuda_float32(const pg_call *call) { return scratch(call, PG_FLOAT32); }
int64_t matmul_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, PG_BFLOAT16); }
