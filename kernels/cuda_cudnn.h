/* cuDNN 9 through its backend API: a graph of operations, the engines that cuDNN offers for it, the plan by which one
 * runs it.
 *
 * A graph is built call by call; the first call that fails leaves its message (pg_last_error) and its status in the
 * graph, and the calls after it do nothing. A graph that cuDNN calls not supported is PG_ERROR_UNSUPPORTED, everything
 * else PG_ERROR_DEVICE. An engine with its knobs is a text, "8:24=2,14=3", that makes the same plan again in a later
 * process. */
#ifndef PERIGEE_KERNELS_CUDA_CUDNN_H
#define PERIGEE_KERNELS_CUDA_CUDNN_H

#include <cudnn.h>

#include "kernel.h"

enum { CUDNN_MOST_DESCRIPTORS = 128, CUDNN_MOST_OPERATIONS = 24, CUDNN_MOST_TENSORS = 16, CUDNN_ENGINE_TEXT = 256 };
enum { CUDNN_TENSOR_ALIGNMENT = 16, CUDNN_WORKSPACE_ALIGNMENT = 256 }; /* bytes that addresses are multiples of */

typedef struct cudnn_graph {
  const char *op;                  /* for messages */
  cudnnHandle_t handle;            /* of the GPU it is for; or */
  cudnnBackendDescriptor_t device; /* that GPU's properties (cudnn_device), where it isn't here: plans can be made, not run */
  int tensor_cores;                /* may serve: they round the products' operands, were these float32, to tf32 */
  pg_status status;
  cudnnBackendDescriptor_t made[CUDNN_MOST_DESCRIPTORS]; /* all that belongs to the graph, in the order of making */
  int made_count;
  cudnnBackendDescriptor_t operations[CUDNN_MOST_OPERATIONS];
  int operation_count;
  cudnnBackendDescriptor_t graph; /* finished */
  cudnnBackendDescriptor_t plan;  /* NULL: none yet */
  int64_t workspace;              /* bytes that a run of the plan needs */
} cudnn_graph;

/* The process's handle, made when it is first asked for. */
pg_status cudnn_handle(cudnnHandle_t *handle);

/* A GPU by cuDNN's own description of it (JSON). */
pg_status cudnn_device(cudnnBackendDescriptor_t *out, const char *json);

/* The kinds of tensor: memory that comes with a run; a value between two operations; a float32 of the host, taken at a
 * run. */
enum { CUDNN_MEMORY, CUDNN_BETWEEN, CUDNN_BY_VALUE };
cudnnBackendDescriptor_t cudnn_tensor(cudnn_graph *g, int64_t uid, cudnnDataType_t type, const int64_t shape[4],
                                      const int64_t stride[4], int kind);

/* A descriptor of any type: made, its attributes set, finished. */
cudnnBackendDescriptor_t cudnn_make(cudnn_graph *g, cudnnBackendDescriptorType_t type);
void cudnn_set(cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
               int64_t count, const void *values);
void cudnn_set_descriptor(cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                          cudnnBackendDescriptor_t value);
void cudnn_finish(cudnn_graph *g, cudnnBackendDescriptor_t d);

/* cuDNN's identifier of a graph's tensor k, counted from 0. */
int64_t cudnn_uid(int k);

/* Finishes an operation, and puts it behind the others of the graph. */
void cudnn_operation(cudnn_graph *g, cudnnBackendDescriptor_t operation);

/* The operation y = f(x, b) in float32, b broadcast or NULL; it returns y. */
cudnnBackendDescriptor_t cudnn_pointwise(cudnn_graph *g, cudnnPointwiseMode_t f, cudnnBackendDescriptor_t x,
                                         cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

/* After the last operation. */
pg_status cudnn_graph_finish(cudnn_graph *g);

/* The graph, its plan and all descriptors; it is as good as new then. */
void cudnn_graph_free(cudnn_graph *g);

/* The engines that cuDNN's heuristic proposes (where none is left: its fallback), best first, without those whose bits
 * depend on the order in which blocks finish and those that add less exactly than the operations say (Winograd's,
 * Fourier's, with operands or sums of fewer bits). *count = 0: there are none. */
pg_status cudnn_engines(cudnn_graph *g, char engines[][CUDNN_ENGINE_TEXT], int room, int *count);

/* Makes an engine's plan: the graph's only one. */
pg_status cudnn_plan(cudnn_graph *g, const char *engine);

/* Queues one run of the plan. tensors[k], k < n <= CUDNN_MOST_TENSORS: the address of tensor k; NULL: the graph hasn't
 * it. */
pg_status cudnn_run(const cudnn_graph *g, int n, void *const *tensors, void *workspace, void *stream);

#endif
