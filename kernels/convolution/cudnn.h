/* The three kernels of convolution as graphs of cuDNN's (cudnn.c), in float32 and bfloat16. */
#ifndef PERIGEE_CONVOLUTION_CUDNN_H
#define PERIGEE_CONVOLUTION_CUDNN_H

#include "convolution/check.h"
#include "cuda_cudnn.h"

typedef struct convolution_graph {
  int kernel; /* one of check.h's three */
  int dtype;  /* PG_FLOAT32 or PG_BFLOAT16 */
  int tf32;   /* float32 products may be rounded */
  int bias;   /* added by the graph; forward only */
  convolution_size size;
} convolution_graph;

/* The graphs' tensors, as cudnn_run() counts them: x or its gradient, weight or its gradient, y or its gradient, bias. */
enum { CONVOLUTION_X, CONVOLUTION_W, CONVOLUTION_Y, CONVOLUTION_BIAS, CONVOLUTION_TENSORS };

/* Builds the graph; g->handle or g->device says for which GPU. PG_ERROR_UNSUPPORTED: there is none. */
pg_status convolution_cudnn(cudnn_graph *g, const convolution_graph *c);

#endif
