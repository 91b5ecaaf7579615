/* Matrix multiplication by cuBLASLt: a call as a product, cuBLASLt's descriptions of it, and its algorithm.
 *
 * cuBLASLt counts by columns: a row-major [M,N] is its N×M. So D = op(A)·op(B) there has the call's b as A and its a
 * as B. */
#ifndef PERIGEE_MATMUL_CUDA_PRODUCT_H
#define PERIGEE_MATMUL_CUDA_PRODUCT_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "cuda_choice.h"
#include "matmul/check.h"

enum { MATMUL_ALIGNMENT = 16 }; /* bytes that planned addresses are multiples of */

/* Ends the function with an error unless the call of cuBLASLt succeeds. */
#define LT(function, ...) \
  do { \
    pg_status status_ = matmul_lt_status(#function, function(__VA_ARGS__)); \
    if (status_) return status_; \
  } while (0)
pg_status matmul_lt_status(const char *function, cublasStatus_t status);

/* The process's handle, made when it is first asked for. */
pg_status matmul_library(cublasLtHandle_t *handle);

/* ---- a call as a product (cuda_product.c) ---- */

/* `batches` products at even distances, `outer` such groups. */
typedef struct product {
  int dtype; /* PG_FLOAT32 or PG_BFLOAT16 */
  cublasComputeType_t compute;
  int transpose_a, transpose_b;
  int64_t rows, columns, depth; /* D is rows × columns */
  int64_t batches, stride_a, stride_b;
  int64_t outer;
  int outer_dims;
  cublasLtEpilogue_t epilogue;
  int alignment, level;
  const pg_call *call;
  matmul_views v;
  int activation;
} product;

/* How much cuBLASLt's epilogue does: the bias; or an activation, a derivative or the sums over a's rows too; or the sums of
 * out's columns as well. What it leaves is done by passes of our own. */
enum { MATMUL_PLAIN, MATMUL_FUSED, MATMUL_WHOLE };

/* At a level, or at the highest one below it whose epilogue cuBLASLt has. */
product matmul_describe(const pg_call *call, int dtype, int level);
int matmul_is_fused(const product *p);
int matmul_has_aux(const product *p);

/* Elements from one matrix to the next along batch dimension d of out; 0 where the tensor is broadcast. */
int64_t matmul_batch_stride(const pg_view *out, const pg_view *v, int d);

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

pg_status matmul_build(descriptions *t, const product *p);
/* Sets the addresses that are part of the operation: the bias's and aux's. */
pg_status matmul_aim(const descriptions *t, const product *p, const operands *o);
pg_status matmul_multiply(const descriptions *t, const operands *o, const cublasLtMatmulAlgo_t *algorithm,
                          cudaStream_t stream);
void matmul_destroy(descriptions *t);

/* ---- what the epilogue lacks: f or f' by a pass over the product (cuda.c), sums by reduce ---- */

int matmul_has_pass(const product *p);
/* out = f(sums), or sums·f'(aux), of a product that lies at `sums`: all of it, or so many elements from its start. */
pg_status matmul_pass(const product *p, int64_t elements, void *out, const void *sums, const void *aux, void *stream);

/* Does the call ask for sums, over a's rows or of out's columns, that the epilogue doesn't make? */
int matmul_lacks_sums(const product *p);
/* A call of reduce that makes them at `sums`, from a or from out at `data`; with the call's own scratch. */
pg_call matmul_sums(const product *p, void *sums, const void *data);
pg_status matmul_add_up(const pg_call *sums, int dtype);
/* Scratch bytes; 0 where it lacks none. */
int64_t matmul_sums_scratch(const product *p);

/* ---- its algorithm (cuda_choice.c) ---- */

typedef struct choice {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace;
  int none; /* cuBLASLt has none for this product */
} choice;

/* The choice for a product that is being planned. */
pg_status matmul_choose(const product *p, choice *c);
/* The choice that was made for a product, if there is one. */
int matmul_recall(const product *p, choice *c);
/* The algorithm for a call: as planned; for addresses that no plan has met, the heuristic's first. */
pg_status matmul_settle(const product *p, const descriptions *t, const operands *o, choice *c);

#endif
