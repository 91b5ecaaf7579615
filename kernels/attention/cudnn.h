/* Attention and its backward as graphs of cuDNN's (cudnn.c), in bfloat16. */
#ifndef PERIGEE_ATTENTION_CUDNN_H
#define PERIGEE_ATTENTION_CUDNN_H

#include "cuda_cudnn.h"

typedef struct attention_size {
  int64_t images, tokens, heads, size;
} attention_size;

/* The graphs' tensors, as cudnn_run() counts them. */
enum {
  ATTENTION_QUERIES, ATTENTION_KEYS, ATTENTION_VALUES,    /* parts of a packed [B,N,3,H,d] */
  ATTENTION_OUT,                                          /* [B,N,H,d] */
  ATTENTION_LSE,                                          /* float32 [B,H,N] */
  ATTENTION_SCALE,                                        /* a float of the host */
  ATTENTION_DOUT,                                         /* [B,N,H,d] */
  ATTENTION_DQUERIES, ATTENTION_DKEYS, ATTENTION_DVALUES, /* parts of a packed [B,N,3,H,d] */
  ATTENTION_DELTA,                                        /* float32 [B,H,N], scratch of the backward */
  ATTENTION_ONE,                                          /* a float of the host, 1 */
  ATTENTION_TENSORS
};

/* Build the graph; g->handle or g->device says for which GPU. PG_ERROR_UNSUPPORTED: there is none. */
pg_status attention_cudnn_forward(cudnn_graph *g, attention_size n, int with_lse);
pg_status attention_cudnn_backward(cudnn_graph *g, attention_size n);

#endif
