/* The forward pass is cuDNN's one operation for it. The backward is composed of the operations that cuDNN knows as
 * FlashAttention's (Dao 2023): its one operation for that adds dQ up by atomics in whatever order blocks finish (red.add.f32 in
 * the kernels of sm_80, TMA reductions in those of sm_90; cuDNN 9.28), and so does the composed graph where dQ is float32 in
 * memory. With dQ = dS·K written where it is wanted, cuDNN keeps dS in its workspace and multiplies in a fixed order.
 *
 * Attributes, modes and the order of operations after NVIDIA's documentation of the backend API and its open front end. */
#include "attention/cudnn.h"

typedef cudnnBackendDescriptor_t descriptor;

/* A graph being drawn. */
typedef struct drawing {
  cudnn_graph *g;
  attention_size n;
  int64_t next; /* identifier of the next value between two operations */
} drawing;

static drawing drawing_of(cudnn_graph *g, attention_size n, const char *op) {
  g->op = op;
  g->tensor_cores = 1;
  return (drawing){g, n, cudnn_uid(ATTENTION_TENSORS)};
}

/* ---- tensors: [B,H,N,d] in some order of memory ---- */

enum { BETWEEN = ATTENTION_TENSORS }; /* in place of a tensor of the graph: a value between two operations */
enum { AS_IT_IS, TRANSPOSED };

/* A part of a packed [B,N,3,H,d]; transposed: [B,H,d,N]. */
static descriptor packed_part(drawing *w, int tensor, int transposed) {
  const attention_size n = w->n;
  const int64_t row = 3 * n.heads * n.size;
  const int64_t shape[4] = {n.images, n.heads, transposed ? n.size : n.tokens, transposed ? n.tokens : n.size};
  const int64_t stride[4] = {n.tokens * row, n.size, transposed ? 1 : row, transposed ? row : 1};
  if (tensor == BETWEEN) return cudnn_tensor(w->g, w->next++, CUDNN_DATA_BFLOAT16, shape, stride, CUDNN_BETWEEN);
  return cudnn_tensor(w->g, cudnn_uid(tensor), CUDNN_DATA_BFLOAT16, shape, stride, CUDNN_MEMORY);
}

/* [B,N,H,d]; of type float32 only between operations. */
static descriptor output(drawing *w, int tensor) {
  const attention_size n = w->n;
  const int64_t row = n.heads * n.size;
  const int64_t shape[4] = {n.images, n.heads, n.tokens, n.size}, stride[4] = {n.tokens * row, n.size, row, 1};
  if (tensor == BETWEEN) return cudnn_tensor(w->g, w->next++, CUDNN_DATA_FLOAT, shape, stride, CUDNN_BETWEEN);
  return cudnn_tensor(w->g, cudnn_uid(tensor), CUDNN_DATA_BFLOAT16, shape, stride, CUDNN_MEMORY);
}

/* A number a row: float32 [B,H,N,1]. */
static descriptor rows(drawing *w, int tensor) {
  const attention_size n = w->n;
  const int64_t shape[4] = {n.images, n.heads, n.tokens, 1}, stride[4] = {n.heads * n.tokens, n.tokens, 1, 1};
  if (tensor == BETWEEN) return cudnn_tensor(w->g, w->next++, CUDNN_DATA_FLOAT, shape, stride, CUDNN_BETWEEN);
  return cudnn_tensor(w->g, cudnn_uid(tensor), CUDNN_DATA_FLOAT, shape, stride, CUDNN_MEMORY);
}

/* A map [B,H,N,N], which is in no memory. */
static descriptor map(drawing *w, cudnnDataType_t type, int transposed) {
  const attention_size n = w->n;
  const int64_t all = n.tokens * n.tokens, shape[4] = {n.images, n.heads, n.tokens, n.tokens};
  const int64_t stride[4] = {n.heads * all, all, transposed ? 1 : n.tokens, transposed ? n.tokens : 1};
  return cudnn_tensor(w->g, w->next++, type, shape, stride, CUDNN_BETWEEN);
}

static descriptor number(drawing *w, int tensor) {
  const int64_t one[4] = {1, 1, 1, 1};
  return cudnn_tensor(w->g, cudnn_uid(tensor), CUDNN_DATA_FLOAT, one, one, CUDNN_BY_VALUE);
}

/* ---- operations, in float32; each returns its result ---- */

static const cudnnDataType_t in_float = CUDNN_DATA_FLOAT;

static void put(drawing *w, descriptor operation, cudnnBackendAttributeName_t name, descriptor value) {
  cudnn_set_descriptor(w->g, operation, name, value);
}

/* c = a·b, matrices in the last two dimensions. */
static descriptor multiply(drawing *w, descriptor a, descriptor b, descriptor c) {
  descriptor how = cudnn_make(w->g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  cudnn_set(w->g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &in_float);
  cudnn_finish(w->g, how);
  descriptor operation = cudnn_make(w->g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  put(w, operation, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
  put(w, operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
  put(w, operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
  put(w, operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
  cudnn_operation(w->g, operation);
  return c;
}

/* y = the sum over the dimensions in which it has 1. */
static descriptor sum(drawing *w, descriptor x, descriptor y) {
  const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
  descriptor how = cudnn_make(w->g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  cudnn_set(w->g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &add);
  cudnn_set(w->g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &in_float);
  cudnn_finish(w->g, how);
  descriptor operation = cudnn_make(w->g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  put(w, operation, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
  put(w, operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
  put(w, operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
  cudnn_operation(w->g, operation);
  return y;
}

/* y = x, seen by other strides: its transpose. */
static descriptor reshape(drawing *w, descriptor x, descriptor y) {
  descriptor operation = cudnn_make(w->g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  put(w, operation, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
  put(w, operation, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
  cudnn_operation(w->g, operation);
  return y;
}

/* ---- graphs ---- */

pg_status attention_cudnn_forward(cudnn_graph *g, attention_size n, int with_lse) {
  drawing drawn = drawing_of(g, n, "cuDNN's attention"), *w = &drawn;
  const struct {
    cudnnBackendAttributeName_t name;
    descriptor tensor;
  } parts[] = {
    {CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, packed_part(w, ATTENTION_QUERIES, AS_IT_IS)},
    {CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, packed_part(w, ATTENTION_KEYS, AS_IT_IS)},
    {CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, packed_part(w, ATTENTION_VALUES, AS_IT_IS)},
    {CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, number(w, ATTENTION_SCALE)},
    {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, output(w, ATTENTION_OUT)},
  };
  descriptor operation = cudnn_make(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
  for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) put(w, operation, parts[k].name, parts[k].tensor);
  if (with_lse) put(w, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, rows(w, ATTENTION_LSE));
  cudnn_operation(g, operation);
  return cudnn_graph_finish(g);
}

/* attention.h's equations, one operation after another; what is not in memory is called a map or `between`. */
pg_status attention_cudnn_backward(cudnn_graph *g, attention_size n) {
  if (n.tokens == 1) return g->status = pg_error(PG_ERROR_UNSUPPORTED, "cuDNN's attention_backward: one token");
  drawing drawn = drawing_of(g, n, "cuDNN's attention_backward"), *w = &drawn;
  descriptor q = packed_part(w, ATTENTION_QUERIES, AS_IT_IS), k = packed_part(w, ATTENTION_KEYS, TRANSPOSED);
  descriptor v = packed_part(w, ATTENTION_VALUES, TRANSPOSED), out = output(w, ATTENTION_OUT), dout = output(w, ATTENTION_DOUT);
  descriptor lse = rows(w, ATTENTION_LSE), scale = number(w, ATTENTION_SCALE), one = number(w, ATTENTION_ONE);

  /* delta = sum(dO∘O); times 1, where other graphs undo dropout */
  descriptor delta = cudnn_pointwise(w->g, CUDNN_POINTWISE_MUL, dout, out, output(w, BETWEEN));
  delta = sum(w, delta, rows(w, BETWEEN));
  delta = cudnn_pointwise(w->g, CUDNN_POINTWISE_MUL, delta, one, rows(w, ATTENTION_DELTA));

  /* P = exp(S − lse), dV = Pᵀ·dO */
  descriptor s = multiply(w, q, k, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  s = cudnn_pointwise(w->g, CUDNN_POINTWISE_MUL, s, scale, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  s = cudnn_pointwise(w->g, CUDNN_POINTWISE_SUB, s, lse, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  descriptor p = cudnn_pointwise(w->g, CUDNN_POINTWISE_EXP, s, NULL, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  descriptor transposed = reshape(w, p, map(w, CUDNN_DATA_BFLOAT16, TRANSPOSED));
  multiply(w, transposed, dout, packed_part(w, ATTENTION_DVALUES, AS_IT_IS));

  /* dS = scale·P∘(dO·Vᵀ − delta), dK = dSᵀ·Q */
  descriptor ds = multiply(w, dout, v, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  ds = cudnn_pointwise(w->g, CUDNN_POINTWISE_SUB, ds, delta, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  ds = cudnn_pointwise(w->g, CUDNN_POINTWISE_MUL, ds, p, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  ds = cudnn_pointwise(w->g, CUDNN_POINTWISE_MUL, ds, scale, map(w, CUDNN_DATA_FLOAT, AS_IT_IS));
  transposed = reshape(w, ds, map(w, CUDNN_DATA_BFLOAT16, TRANSPOSED));
  multiply(w, transposed, q, packed_part(w, ATTENTION_DKEYS, AS_IT_IS));

  /* dQ = dS·K */
  multiply(w, ds, reshape(w, k, packed_part(w, BETWEEN, AS_IT_IS)), packed_part(w, ATTENTION_DQUERIES, AS_IT_IS));
  return cudnn_graph_finish(g);
}
