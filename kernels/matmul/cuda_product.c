/* From a call of matmul to a product of cuBLASLt, and the product's run (cuda_product.h). */
#include "matmul/cuda_product.h"
#include "reduce/reduce.h"

pg_status matmul_lt_status(const char *function, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return PG_OK;
  return pg_error(PG_ERROR_DEVICE, "%s: %s", function, cublasLtGetStatusName(status));
}

pg_status matmul_library(cublasLtHandle_t *handle) {
  static cublasLtHandle_t made;
  if (!made) LT(cublasLtCreate, &made);
  *handle = made;
  return PG_OK;
}

/* ---- from the contract to a product ---- */

/* Elements from one matrix to the next along batch dimension d of out; 0 where the tensor is broadcast. */
int64_t matmul_batch_stride(const pg_view *out, const pg_view *v, int d) {
  int own = d - (out->ndim - v->ndim);
  return own < 0 || v->shape[own] == 1 ? 0 : v->stride[own];
}

/* Joins batch dimensions from the last to the first, as long as both operands advance evenly. */
static void join_batches(product *p) {
  const pg_view *out = p->v.out, *a = p->v.b, *b = p->v.a;
  int d = out->ndim - 2;
  p->batches = p->outer = 1;
  for (; d > 0; d--) {
    int64_t size = out->shape[d - 1], next_a = matmul_batch_stride(out, a, d - 1),
            next_b = matmul_batch_stride(out, b, d - 1);
    if (size == 1) continue;
    if (p->batches > 1 && (next_a != p->stride_a * p->batches || next_b != p->stride_b * p->batches)) break;
    if (p->batches == 1) p->stride_a = next_a, p->stride_b = next_b;
    p->batches *= size;
  }
  p->outer_dims = d;
  for (; d > 0; d--) p->outer *= out->shape[d - 1];
}

/* The common alignment of every address that cuBLASLt gets: those of the call, and the groups' places from there. */
static int alignment_of(const product *p) {
  const matmul_views v = p->v;
  const void *const all[] = {v.out->data, v.pre->data, v.sums->data, v.a->data, v.b->data, v.bias->data, v.aux->data};
  const int64_t size = p->dtype == PG_FLOAT32 ? 4 : 2;
  uintptr_t bits = MATMUL_ALIGNMENT;
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) bits |= (uintptr_t)all[k];
  if (p->outer > 1) bits |= (uintptr_t)(p->batches * p->rows * p->columns * size);
  for (int d = 0; d < p->outer_dims; d++)
    bits |= (uintptr_t)((matmul_batch_stride(v.out, v.a, d) | matmul_batch_stride(v.out, v.b, d)) * size);
  return (int)(bits & (~bits + 1));
}

/* The epilogue of cuBLASLt that does it all, or the one before a pass of our own. Its activations take tanh.approx,
 * which is 2^-11 off in every dtype: good enough for bfloat16 alone. */
static cublasLtEpilogue_t epilogue_of(const product *p, int level) {
  const int bias = pg_present(p->v.bias), pre = pg_present(p->v.pre);
  const int activation = p->activation;
  const cublasLtEpilogue_t plain = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  const int saves =
      p->rows % 8 == 0 && p->batches == 1 && p->outer == 1 && p->alignment >= 16; /* what its aux asks for */
  if (level == MATMUL_PLAIN) return plain;
  if (pg_present(p->v.sums)) return CUBLASLT_EPILOGUE_BGRADB;
  if (p->dtype != PG_BFLOAT16) return plain;
  if (activation == ACTIVATION_gelu_tanh && !pre) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  if (activation == ACTIVATION_gelu_tanh && saves)
    return bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (activation == ACTIVATION_DERIVATIVE + ACTIVATION_gelu_tanh && saves && !bias)
    return level == MATMUL_WHOLE && pg_present(p->v.column_sums) ? CUBLASLT_EPILOGUE_DGELU_BGRAD
                                                                  : CUBLASLT_EPILOGUE_DGELU;
  return plain;
}

int matmul_is_fused(const product *p) {
  return p->epilogue != CUBLASLT_EPILOGUE_BIAS && p->epilogue != CUBLASLT_EPILOGUE_DEFAULT;
}
/* A bias, or its gradient. */
static int has_bias(const product *p) {
  return p->epilogue == CUBLASLT_EPILOGUE_BIAS || p->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS ||
         p->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || p->epilogue == CUBLASLT_EPILOGUE_BGRADB ||
         p->epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
}
int matmul_has_aux(const product *p) {
  return p->epilogue == CUBLASLT_EPILOGUE_GELU_AUX || p->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS ||
         p->epilogue == CUBLASLT_EPILOGUE_DGELU || p->epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD;
}

product matmul_describe(const pg_call *call, int dtype, int level) {
  const matmul_views v = matmul_of(call);
  const matmul_ints ints = matmul_ints_of(call);
  const pg_view *out = v.out, *a = v.a;
  product p = {.dtype = dtype, .call = call, .v = v, .activation = (int)ints.activation,
               .transpose_a = ints.transpose_b != 0, .transpose_b = ints.transpose_a != 0};
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
  p.epilogue = epilogue_of(&p, level);
  p.level = level;
  while (p.level > MATMUL_PLAIN && epilogue_of(&p, p.level - 1) == p.epilogue) p.level--;
  return p;
}

/* ---- cuBLASLt's descriptions of it ---- */

void matmul_destroy(descriptions *t) {
  if (t->operation) cublasLtMatmulDescDestroy(t->operation);
  if (t->a) cublasLtMatrixLayoutDestroy(t->a);
  if (t->b) cublasLtMatrixLayoutDestroy(t->b);
  if (t->d) cublasLtMatrixLayoutDestroy(t->d);
  *t = (descriptions){0};
}

static pg_status layout(cublasLtMatrixLayout_t *out, const product *p, int64_t rows, int64_t columns, int64_t stride) {
  LT(cublasLtMatrixLayoutCreate, out, p->dtype == PG_FLOAT32 ? CUDA_R_32F : CUDA_R_16BF, (uint64_t)rows,
     (uint64_t)columns, rows);
  if (p->batches == 1) return PG_OK;
  int32_t count = (int32_t)p->batches;
  LT(cublasLtMatrixLayoutSetAttribute, *out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
  LT(cublasLtMatrixLayoutSetAttribute, *out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
  return PG_OK;
}

pg_status matmul_build(descriptions *t, const product *p) {
  *t = (descriptions){0};
  LT(cublasLtMatmulDescCreate, &t->operation, p->compute, CUDA_R_32F);
  const int32_t transpose_a = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                transpose_b = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const uint32_t epilogue = p->epilogue;
  LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose_a, sizeof transpose_a);
  LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_TRANSB, &transpose_b, sizeof transpose_b);
  LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  if (matmul_has_aux(p))
    LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &p->rows, sizeof p->rows);
  TRY(p->transpose_a ? layout(&t->a, p, p->depth, p->rows, p->stride_a)
                     : layout(&t->a, p, p->rows, p->depth, p->stride_a));
  TRY(p->transpose_b ? layout(&t->b, p, p->columns, p->depth, p->stride_b)
                     : layout(&t->b, p, p->depth, p->columns, p->stride_b));
  return layout(&t->d, p, p->rows, p->columns, p->rows * p->columns);
}

pg_status matmul_aim(const descriptions *t, const product *p, const operands *o) {
  if (has_bias(p))
    LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias, sizeof o->bias);
  if (matmul_has_aux(p))
    LT(cublasLtMatmulDescSetAttribute, t->operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &o->aux, sizeof o->aux);
  return PG_OK;
}

pg_status matmul_multiply(const descriptions *t, const operands *o, const cublasLtMatmulAlgo_t *algorithm,
                          cudaStream_t stream) {
  cublasLtHandle_t handle;
  const float one = 1, zero = 0;
  TRY(matmul_library(&handle));
  LT(cublasLtMatmul, handle, t->operation, &one, o->a, t->a, o->b, t->b, &zero, o->d, t->d, o->d, t->d, algorithm,
     o->workspace, o->workspace_bytes, stream);
  return PG_OK;
}

/* ---- the sums apart ---- */

int matmul_lacks_sums(const product *p) {
  return (pg_present(p->v.sums) && p->epilogue != CUBLASLT_EPILOGUE_BGRADB) ||
         (pg_present(p->v.column_sums) && p->epilogue != CUBLASLT_EPILOGUE_DGELU_BGRAD);
}

pg_call matmul_sums(const product *p, void *sums, const void *data) {
  const int of_out = pg_present(p->v.column_sums);
  const pg_view *from = of_out ? p->v.out : p->v.a;
  pg_call call = {.n = 2, .scratch = p->call->scratch, .scratch_bytes = p->call->scratch_bytes, .stream = p->call->stream};
  call.v[0] = of_out ? *p->v.column_sums : *p->v.sums; /* y */
  call.v[0].data = sums;
  const int64_t columns = from->shape[from->ndim - 1];
  call.v[1] = (pg_view){.data = (void *)(uintptr_t)data, .dtype = from->dtype, .ndim = 2, /* x, as one matrix */
                        .shape = {pg_numel(from) / columns, columns}, .stride = {columns, 1}};
  call.i[0] = PG_REDUCE_sum;
  call.i[1] = 1; /* over the first dimension */
  return call;
}

pg_status matmul_add_up(const pg_call *sums, int dtype) {
  return dtype == PG_FLOAT32 ? reduce_cuda_float32(sums) : reduce_cuda_bfloat16(sums);
}

int64_t matmul_sums_scratch(const product *p) {
  if (!matmul_lacks_sums(p)) return 0;
  const pg_call sums = matmul_sums(p, NULL, NULL);
  return p->dtype == PG_FLOAT32 ? reduce_scratch_cuda_float32(&sums) : reduce_scratch_cuda_bfloat16(&sums);
}
