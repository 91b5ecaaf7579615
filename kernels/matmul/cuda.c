/* Matrix multiplication on GPUs: cuBLASLt, with bias, GELU (tanh), its derivative and the bias's gradient as its
 * epilogues; the rest of the contract by a pass over the product (epilogue.h), or over a or out for sums (reduce.h).
 * cuda_product.c turns a call into a product of cuBLASLt, cuda_choice.c chooses its algorithm. */
#include "matmul/cuda_product.h"
#include "matmul/epilogue.h"

enum {
  WORKSPACE_ALIGNMENT = 256, /* what cuBLASLt asks of its workspace; the plan's is 64 */
  EAGER_WORKSPACE = 4 << 20
};

/* Does cuBLASLt write what the pass reads, elsewhere than to out? Where the product itself is wanted, there. */
static void *product_place(const product *p) {
  void *pre = p->v.pre->data;
  return matmul_is_fused(p) || !pre ? p->v.out->data : pre;
}

static pg_status queue_pass(const product *p, const matmul_epilogue *e, void *stream) {
  return p->dtype == PG_FLOAT32 ? matmul_epilogue_cuda_float32(e, stream) : matmul_epilogue_cuda_bfloat16(e, stream);
}

static matmul_epilogue epilogue_for(const product *p, int64_t elements, void *out) {
  const int64_t columns = p->v.out->shape[p->v.out->ndim - 1];
  const int64_t rows = elements / columns;
  return (matmul_epilogue){.rows = rows, .columns = columns, .out = out, .activation = p->activation};
}

int matmul_has_pass(const product *p) { return p->activation != ACTIVATION_NONE || pg_present(p->v.pre); }

pg_status matmul_pass(const product *p, int64_t elements, void *out, const void *sums, const void *aux, void *stream) {
  matmul_epilogue e = epilogue_for(p, elements, out);
  e.product = sums, e.aux = aux;
  return queue_pass(p, &e, stream);
}

/* The epilogue of a product over no depth. */
static pg_status pass_over_zeros(const product *p) {
  matmul_epilogue e = epilogue_for(p, pg_numel(p->v.out), p->v.out->data);
  e.bias = p->v.bias->data, e.pre = p->v.pre->data, e.aux = p->v.aux->data;
  return queue_pass(p, &e, p->call->stream);
}

static operands operands_of(const product *p, int64_t group) {
  const pg_call *call = p->call;
  const matmul_views v = p->v;
  const pg_view *out = v.out;
  const int64_t size = p->dtype == PG_FLOAT32 ? 4 : 2, number = group;
  int64_t a = 0, b = 0;
  for (int d = p->outer_dims - 1; d >= 0; d--) {
    a += group % out->shape[d] * matmul_batch_stride(out, v.b, d);
    b += group % out->shape[d] * matmul_batch_stride(out, v.a, d);
    group /= out->shape[d];
  }
  const int64_t scratch = (int64_t)(intptr_t)call->scratch;
  const int64_t workspace = pg_round_up(scratch, WORKSPACE_ALIGNMENT);
  const int64_t room = call->scratch_bytes - (workspace - scratch);
  return (operands){
    .a = (const char *)v.b->data + a * size,
    .b = (const char *)v.a->data + b * size,
    .bias = (p->epilogue == CUBLASLT_EPILOGUE_BGRADB        ? v.sums
             : p->epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD ? v.column_sums
                                                            : v.bias)->data,
    .d = (char *)product_place(p) + number * p->batches * p->rows * p->columns * size,
    .aux = (p->activation > ACTIVATION_DERIVATIVE ? v.aux : v.pre)->data,
    .workspace = scratch && room > 0 ? (void *)(intptr_t)workspace : NULL,
    .workspace_bytes = scratch && room > 0 ? (size_t)room : 0,
  };
}

static pg_status run_product(const product *p, int *none) {
  descriptions t;
  choice c;
  operands o = operands_of(p, 0);
  pg_status status = matmul_build(&t, p);
  if (!status) status = matmul_settle(p, &t, &o, &c);
  *none = !status && c.none;
  for (int64_t group = 0; group < p->outer && !status && !*none; group++) {
    o = operands_of(p, group);
    status = matmul_aim(&t, p, &o);
    if (!status) status = matmul_multiply(&t, &o, &c.algorithm, p->call->stream);
  }
  matmul_destroy(&t);
  return status;
}

static pg_status sums_apart(const product *p) {
  if (!matmul_lacks_sums(p)) return PG_OK;
  const int of_out = pg_present(p->v.column_sums);
  const pg_call sums = matmul_sums(p, (of_out ? p->v.column_sums : p->v.sums)->data, (of_out ? p->v.out : p->v.a)->data);
  return matmul_add_up(&sums, p->dtype);
}

static pg_status run(const pg_call *call, int dtype) {
  const matmul_views v = matmul_of(call);
  TRY(matmul_check(call));
  if (pg_numel(v.out) == 0) return PG_OK;
  int none = 1;
  product p = matmul_describe(call, dtype, MATMUL_PLAIN);
  if (p.depth == 0) {
    TRY(pass_over_zeros(&p));
    return sums_apart(&p);
  }
  for (int level = MATMUL_WHOLE; none && level >= MATMUL_PLAIN; level = p.level - 1) {
    p = matmul_describe(call, dtype, level);
    TRY(run_product(&p, &none));
  }
  if (none) return pg_error(PG_ERROR_UNSUPPORTED, "matmul: cuBLASLt has no algorithm for a %s, b %s",
                            pg_shape_text(v.a), pg_shape_text(v.b));
  if (!matmul_is_fused(&p) && matmul_has_pass(&p))
    TRY(matmul_pass(&p, pg_numel(v.out), v.out->data, product_place(&p), v.aux->data, call->stream));
  return sums_apart(&p);
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t scratch(const pg_call *call, int dtype) {
  if (matmul_check(call)) return -1;
  const pg_view *out = matmul_of(call).out;
  if (pg_numel(out) == 0) return 0;
  const int eager = out->data != NULL;
  const product plain = matmul_describe(call, dtype, MATMUL_PLAIN);
  if (plain.depth == 0) return matmul_sums_scratch(&plain);
  product p;
  choice c = {.none = 1};
  for (int level = MATMUL_WHOLE; c.none && level >= MATMUL_PLAIN; level = p.level - 1) {
    p = matmul_describe(call, dtype, level);
    if (eager && !matmul_recall(&p, &c)) return larger(EAGER_WORKSPACE, matmul_sums_scratch(&plain));
    if (!eager && matmul_choose(&p, &c)) return -1;
  }
  return larger(c.workspace ? (int64_t)c.workspace + WORKSPACE_ALIGNMENT : 0, matmul_sums_scratch(&p));
}

pg_status matmul_cuda_float32(const pg_call *call) { return run(call, PG_FLOAT32); }
pg_status matmul_cuda_bfloat16(const pg_call *call) { return run(call, PG_BFLOAT16); }
int64_t matmul_scratch_cuda_float32(const pg_call *call) { return scratch(call, PG_FLOAT32); }
int64_t matmul_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, PG_BFLOAT16); }
