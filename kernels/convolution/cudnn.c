/* cuDNN has an operation for each of the three kernels; a bias is a pointwise addition behind the forward one. */
#include "convolution/cudnn.h"

typedef cudnnBackendDescriptor_t descriptor;

enum { BETWEEN = CONVOLUTION_TENSORS }; /* the sums before a bias, in no memory */

static cudnnDataType_t type_of(const convolution_graph *c) {
  return c->dtype == PG_BFLOAT16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

static descriptor packed(cudnn_graph *g, int tensor, cudnnDataType_t type, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t shape[4] = {a, b, c, d}, stride[4] = {b * c * d, c * d, d, 1};
  return cudnn_tensor(g, cudnn_uid(tensor), type, shape, stride, tensor == BETWEEN ? CUDNN_BETWEEN : CUDNN_MEMORY);
}

/* How the window moves: sums in float32. */
static descriptor window(cudnn_graph *g, const convolution_size *n) {
  const cudnnDataType_t in_float = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const int64_t dimensions = 2, before[2] = {n->top, n->left}, after[2] = {n->bottom, n->right};
  const int64_t stride[2] = {n->stride, n->stride}, dilation[2] = {1, 1};
  descriptor d = cudnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &in_float);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dimensions);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
  cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
  cudnn_finish(g, d);
  return d;
}

/* The operation of each kernel, and its attributes. */
static const struct {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t window, x, weight, y, alpha, beta;
} operations[3] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

pg_status convolution_cudnn(cudnn_graph *g, const convolution_graph *c) {
  const convolution_size *n = &c->size;
  const cudnnDataType_t type = type_of(c);
  const float one = 1, zero = 0;
  g->op = c->kernel == CONVOLUTION_FORWARD ? "cuDNN's convolution"
          : c->kernel == CONVOLUTION_INPUT ? "cuDNN's convolution_backward_input"
                                           : "cuDNN's convolution_backward_weight";
  g->tensor_cores = c->dtype == PG_BFLOAT16 || c->tf32;
  descriptor x = packed(g, CONVOLUTION_X, type, n->images, n->channels, n->height, n->width);
  descriptor weight = packed(g, CONVOLUTION_W, type, n->outputs, n->channels, n->kernel_height, n->kernel_width);
  descriptor y = packed(g, CONVOLUTION_Y, type, n->images, n->outputs, n->rows, n->columns), sums = y;
  if (c->bias) sums = packed(g, BETWEEN, CUDNN_DATA_FLOAT, n->images, n->outputs, n->rows, n->columns);
  descriptor operation = cudnn_make(g, operations[c->kernel].operation);
  cudnn_set_descriptor(g, operation, operations[c->kernel].window, window(g, n));
  cudnn_set_descriptor(g, operation, operations[c->kernel].x, x);
  cudnn_set_descriptor(g, operation, operations[c->kernel].weight, weight);
  cudnn_set_descriptor(g, operation, operations[c->kernel].y, sums);
  cudnn_set(g, operation, operations[c->kernel].alpha, CUDNN_TYPE_FLOAT, 1, &one);
  cudnn_set(g, operation, operations[c->kernel].beta, CUDNN_TYPE_FLOAT, 1, &zero);
  cudnn_operation(g, operation);
  if (c->bias) cudnn_pointwise(g, CUDNN_POINTWISE_ADD, sums, packed(g, CONVOLUTION_BIAS, type, 1, n->outputs, 1, 1), y);
  return cudnn_graph_finish(g);
}
