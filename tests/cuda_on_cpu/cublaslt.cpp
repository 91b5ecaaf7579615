/* Stands for cuBLASLt: products on the host, strict about what the documentation asks for (layouts, epilogues and dtypes
 * that go together, alignments, workspace, memory of the device). It offers two algorithms that sum in different orders, so
 * that a program that does not stick to its choice shows; the second needs a workspace, and writes to all of it. */
#include <cmath>
#include <cstring>
#include <vector>

#include "cublasLt.h"
#include "cuda_on_cpu.h"
#include "numbers.h"

struct cublasLtContext {
  int made;
};
struct cuda_on_cpu_operation {
  cublasComputeType_t compute;
  int32_t transpose_a, transpose_b;
  uint32_t epilogue;
  void *bias; /* or where its gradient goes */
  void *aux;
  int64_t aux_leading;
};
struct cuda_on_cpu_layout {
  cudaDataType type;
  int64_t rows, columns, leading, stride;
  int32_t count;
};
struct cuda_on_cpu_preference {
  uint64_t workspace;
  uint32_t reductions, alignment[4];
};

enum { FORWARD = 0x1e1, BACKWARD = 0x1e2, WORKSPACE = 1024 };

/* Another one whenever algorithms kept by the one before would not serve. */
size_t cublasLtGetVersion(void) { return 130101; }

const char *cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "an unknown status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  static cublasLtContext context = {1};
  *handle = &context;
  return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptions ---- */

template <typename T>
static cublasStatus_t take(T *to, const void *value, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *out = new cuda_on_cpu_operation{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete operation;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t o, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return take(&o->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return take(&o->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&o->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&o->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return take(&o->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return take(&o->aux_leading, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t columns,
                                          int64_t leading) {
  *out = new cuda_on_cpu_layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), leading, 0, 1};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(&l->count, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(&l->stride, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
  *out = new cuda_on_cpu_preference{0, 7, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(&p->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(&p->reductions, value, bytes);
    default: return take(&p->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, bytes);
  }
}

/* ---- what goes together ---- */

static bool has_aux(uint32_t epilogue) { return epilogue & 128; }
static bool has_bias(uint32_t epilogue) { return epilogue & 4; }

/* Elements at the bias's pointer: a bias for each of D's rows or its gradient, or the gradient of one for each of D's
 * columns. */
static int64_t vector_length(uint32_t epilogue, const cuda_on_cpu_layout *d) {
  return has_bias(epilogue) || epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD ? d->rows : epilogue == CUBLASLT_EPILOGUE_BGRADB ? d->columns : 0;
}

/* The power of two, at most 256, that an address is a multiple of. */
static uint64_t alignment_of(const void *p) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(p) | 256;
  return bits & (~bits + 1);
}

static bool known(uint32_t epilogue) {
  switch (epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_DGELU:
    case CUBLASLT_EPILOGUE_DGELU_BGRAD:
    case CUBLASLT_EPILOGUE_BGRADB: return true;
  }
  return false;
}

static bool is_layout(const cuda_on_cpu_layout *l, const cuda_on_cpu_layout *d) {
  return l->rows > 0 && l->columns > 0 && l->leading >= l->rows && l->count == d->count && l->type == d->type &&
         (l->type == CUDA_R_32F || l->type == CUDA_R_16BF);
}

static cublasStatus_t check(const cuda_on_cpu_operation *o, const cuda_on_cpu_layout *a, const cuda_on_cpu_layout *b,
                            const cuda_on_cpu_layout *c, const cuda_on_cpu_layout *d) {
  if (!is_layout(a, d) || !is_layout(b, d) || !is_layout(c, d) || !is_layout(d, d)) return CUBLAS_STATUS_INVALID_VALUE;
  const int64_t rows = o->transpose_a ? a->columns : a->rows, depth = o->transpose_a ? a->rows : a->columns;
  const int64_t inner = o->transpose_b ? b->columns : b->rows, columns = o->transpose_b ? b->rows : b->columns;
  if (rows != d->rows || columns != d->columns || depth != inner || c->rows != d->rows || c->columns != d->columns)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (d->count > 1 && d->stride < d->leading * d->columns) return CUBLAS_STATUS_INVALID_VALUE; /* results would overlap */
  if (d->type == CUDA_R_16BF && o->compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!known(o->epilogue)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (vector_length(o->epilogue, d) && !o->bias) return CUBLAS_STATUS_INVALID_VALUE;
  if (o->epilogue == CUBLASLT_EPILOGUE_BGRADB && d->count > 1) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!has_aux(o->epilogue)) return CUBLAS_STATUS_SUCCESS;
  if (!o->aux || o->aux_leading < d->rows || o->aux_leading % 8) return CUBLAS_STATUS_INVALID_VALUE;
  return d->count == 1 && reinterpret_cast<uintptr_t>(o->aux) % 16 == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count) {
  *count = 0;
  cublasStatus_t status = check(operation, a, b, c, d);
  if (status) return status;
  for (int k = 0; k < 2 && k < wanted; k++) {
    size_t workspace = k ? WORKSPACE : 0;
    if (workspace > p->workspace) continue;
    cublasLtMatmulHeuristicResult_t *r = &results[(*count)++];
    memset(r, 0, sizeof *r);
    r->algo.data[0] = k ? BACKWARD : FORWARD;
    for (int i = 0; i < 4; i++) r->algo.data[1 + i] = p->alignment[i];
    r->algo.data[5] = alignment_of(operation->bias), r->algo.data[6] = alignment_of(operation->aux);
    r->workspaceSize = workspace;
  }
  return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulHeuristicResult_t *result) {
  cublasStatus_t status = check(operation, a, b, c, d);
  if (status) return status;
  if (algorithm->data[0] != FORWARD && algorithm->data[0] != BACKWARD) return CUBLAS_STATUS_INVALID_VALUE;
  memset(result, 0, sizeof *result);
  result->algo = *algorithm;
  result->workspaceSize = algorithm->data[0] == BACKWARD ? WORKSPACE : 0;
  return CUBLAS_STATUS_SUCCESS;
}

/* ---- products ---- */

struct product {
  cuda_on_cpu_operation operation;
  cuda_on_cpu_layout a_layout, b_layout, d_layout;
  const char *a, *b;
  char *d, *workspace;
  size_t workspace_bytes;
  bool backward;
};

static float load(const char *data, cudaDataType type, int64_t i) {
  if (type == CUDA_R_32F) return reinterpret_cast<const float *>(data)[i];
  return from_bfloat16(reinterpret_cast<const uint16_t *>(data)[i]);
}

static void store(char *data, cudaDataType type, int64_t i, float x) {
  if (type == CUDA_R_32F) reinterpret_cast<float *>(data)[i] = x;
  else reinterpret_cast<uint16_t *>(data)[i] = to_bfloat16(x);
}

/* cuBLASLt's epilogues have the hyperbolic tangent by tanh.approx, whatever the dtype: it is 2^-11 off. */
static float approximate_tanh(float x) { return tf32(tanhf(x)); }
static float gelu(float x) {
  return 0.5f * x * (1 + approximate_tanh(0.79788456f * (x + 0.044715f * x * x * x)));
}
static float gelu_derivative(float x) {
  float t = approximate_tanh(0.79788456f * (x + 0.044715f * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
}

static float finished(const product *p, float x, int64_t row, int64_t column) {
  const cuda_on_cpu_operation *o = &p->operation;
  const cudaDataType type = p->d_layout.type;
  char *aux = static_cast<char *>(o->aux);
  int64_t at = row + column * o->aux_leading;
  if (has_bias(o->epilogue)) x += load(static_cast<const char *>(o->bias), type, row);
  if ((o->epilogue & CUBLASLT_EPILOGUE_DGELU) == CUBLASLT_EPILOGUE_DGELU) return x * gelu_derivative(load(aux, type, at));
  if (has_aux(o->epilogue)) store(aux, type, at, x);
  return o->epilogue & CUBLASLT_EPILOGUE_GELU ? gelu(x) : x;
}

static float sum(const product *p, int64_t row, int64_t column, int64_t batch) {
  const cuda_on_cpu_layout *a = &p->a_layout, *b = &p->b_layout;
  const bool ta = p->operation.transpose_a, tb = p->operation.transpose_b;
  const int64_t depth = ta ? a->rows : a->columns;
  const bool rounds = p->operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  float total = 0;
  for (int64_t i = 0; i < depth; i++) {
    int64_t k = p->backward ? depth - 1 - i : i;
    float x = load(p->a, a->type, batch * a->stride + (ta ? k + row * a->leading : row + k * a->leading));
    float y = load(p->b, b->type, batch * b->stride + (tb ? column + k * b->leading : k + column * b->leading));
    total += rounds ? tf32(x) * tf32(y) : x * y;
  }
  return total;
}

/* The bias's gradient: the sum over the depth of a column of op(B). */
static void add_columns(const product *p) {
  const cuda_on_cpu_layout *b = &p->b_layout;
  const bool tb = p->operation.transpose_b;
  const int64_t depth = tb ? b->columns : b->rows;
  for (int64_t column = 0; column < p->d_layout.columns; column++) {
    float total = 0;
    for (int64_t i = 0; i < depth; i++) {
      int64_t k = p->backward ? depth - 1 - i : i;
      total += load(p->b, b->type, tb ? column + k * b->leading : k + column * b->leading);
    }
    store(static_cast<char *>(p->operation.bias), p->d_layout.type, column, total);
  }
}

static cudaError_t run(const void *data) {
  const product *p = static_cast<const product *>(data);
  const cuda_on_cpu_layout *d = &p->d_layout;
  const bool sums_rows = p->operation.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD; /* of D, before it is rounded */
  std::vector<float> totals(sums_rows ? static_cast<size_t>(d->rows) : 0);
  if (p->backward) memset(p->workspace, 0xff, p->workspace_bytes);
  if (p->operation.epilogue == CUBLASLT_EPILOGUE_BGRADB) add_columns(p);
  for (int64_t batch = 0; batch < d->count; batch++)
    for (int64_t column = 0; column < d->columns; column++)
      for (int64_t row = 0; row < d->rows; row++) {
        const float x = finished(p, sum(p, row, column, batch), row, column);
        store(p->d, d->type, batch * d->stride + row + column * d->leading, x);
        if (sums_rows) totals[static_cast<size_t>(row)] += x;
      }
  for (size_t row = 0; row < totals.size(); row++)
    store(static_cast<char *>(p->operation.bias), d->type, static_cast<int64_t>(row), totals[row]);
  return cudaSuccess;
}

/* Bytes from a matrix's start to its last element. */
static size_t reach(const cuda_on_cpu_layout *l) {
  int64_t elements = (l->count - 1) * l->stride + (l->columns - 1) * l->leading + l->rows;
  return static_cast<size_t>(elements) * (l->type == CUDA_R_32F ? 4 : 2);
}

static bool is_aligned(const void *p, uint64_t alignment) { return reinterpret_cast<uintptr_t>(p) % alignment == 0; }

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  cublasLtMatmulHeuristicResult_t result;
  if (!handle || !handle->made) return CUBLAS_STATUS_NOT_INITIALIZED;
  cublasStatus_t status = check(operation, a_layout, b_layout, c_layout, d_layout);
  if (!status) status = cublasLtMatmulAlgoCheck(handle, operation, a_layout, b_layout, c_layout, d_layout, algorithm, &result);
  if (status) return status;
  if (*static_cast<const float *>(alpha) != 1 || *static_cast<const float *>(beta) != 0 || c != d)
    return CUBLAS_STATUS_NOT_SUPPORTED; /* nobody here asks for more */
  if (!cuda_on_cpu_holds(a, reach(a_layout)) || !cuda_on_cpu_holds(b, reach(b_layout)) || !cuda_on_cpu_holds(d, reach(d_layout)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const void *const pointers[6] = {a, b, c, d, vector_length(operation->epilogue, d_layout) ? operation->bias : nullptr,
                                   has_aux(operation->epilogue) ? operation->aux : nullptr};
  for (int k = 0; k < 6; k++)
    if (!is_aligned(pointers[k], algorithm->data[1 + k])) return CUBLAS_STATUS_INVALID_VALUE;
  const size_t element = d_layout->type == CUDA_R_32F ? 4 : 2;
  const int64_t length = vector_length(operation->epilogue, d_layout);
  if (length && !cuda_on_cpu_holds(operation->bias, static_cast<size_t>(length) * element)) return CUBLAS_STATUS_INVALID_VALUE;
  if (has_aux(operation->epilogue) &&
      !cuda_on_cpu_holds(operation->aux, static_cast<size_t>(operation->aux_leading * d_layout->columns) * element))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (result.workspaceSize > workspace_bytes || !is_aligned(workspace, 256) ||
      (result.workspaceSize && !cuda_on_cpu_holds(workspace, result.workspaceSize)))
    return CUBLAS_STATUS_INVALID_VALUE;
  product p = {*operation, *a_layout, *b_layout, *d_layout, static_cast<const char *>(a), static_cast<const char *>(b),
               static_cast<char *>(d), static_cast<char *>(workspace), result.workspaceSize, algorithm->data[0] == BACKWARD};
  return cuda_on_cpu_submit(stream, run, &p, sizeof p) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
