/* Convolution on GPUs: by kernels of our own (cuda.cu) or, where the plugin is built with cuDNN, by cuDNN's, and
 * which of the two runs is a choice (cuda_cudnn_choice.h; PERIGEE_CONVOLUTION asks for one of them). */

#include "convolution/check.h"
#include "convolution/convolution.h"
#include "convolution/own.h"

static pg_status run_own(const pg_call *call, int kernel, int dtype) {
  return dtype == PG_FLOAT32 ? convolution_own_cuda_float32(call, kernel) : convolution_own_cuda_bfloat16(call, kernel);
}

#ifdef PERIGEE_WITH_CUDNN

#include "convolution/cudnn.h"
#include "cuda_cudnn_choice.h"

/* Bytes that cuDNN may have: room for all tensors in the layout that tensor cores like, and for parts of sums. */
static int64_t most_workspace(const pg_call *call, int kernel) {
  const convolution_tensors t = convolution_tensors_of(call, kernel);
  return (64 << 20) + (pg_numel(t.x) + pg_numel(t.weight) + pg_numel(t.y)) * pg_dtype_bytes(t.x->dtype);
}

static pg_status draw(cudnn_graph *g, const void *problem) { return convolution_cudnn(g, problem); }

static pg_status run_ours(const pg_call *call, const void *problem) {
  const convolution_graph *c = problem;
  return run_own(call, c->kernel, c->dtype);
}

static pg_status run_cudnn(const cudnn_graph *g, const pg_call *call, const void *problem, void *workspace,
                           void *beside) {
  const convolution_graph *c = problem;
  (void)beside;
  const convolution_tensors t = convolution_tensors_of(call, c->kernel);
  void *tensors[CONVOLUTION_TENSORS] = {NULL};
  tensors[CONVOLUTION_X] = t.x->data, tensors[CONVOLUTION_W] = t.weight->data, tensors[CONVOLUTION_Y] = t.y->data;
  if (c->bias) tensors[CONVOLUTION_BIAS] = t.bias->data;
  return cudnn_run(g, CONVOLUTION_TENSORS, tensors, workspace, call->stream);
}

static const cudnn_rival rival = {"convolution", "PERIGEE_CONVOLUTION", draw, run_ours, run_cudnn};

static cudnn_contest contest_of(const pg_call *call, const convolution_graph *g) {
  const convolution_size n = g->size;
  const char *arithmetic = g->dtype == PG_BFLOAT16 ? "bfloat16" : g->tf32 ? "tf32" : "float32";
  cudnn_contest c = {.rival = &rival, .call = call, .problem = g, .most_workspace = most_workspace(call, g->kernel)};
  snprintf(c.key, sizeof c.key,
           "%s/%s/cudnn-%zu/%s/%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 "/%" PRId64 "x%" PRId64 "x%" PRId64
           "/%" PRId64 "+%" PRId64 "+%" PRId64 "+%" PRId64 "+%" PRId64 "%s",
           convolution_name(g->kernel), pg_gpu_name(), cudnnGetVersion(), arithmetic, n.images, n.channels, n.height,
           n.width, n.outputs, n.kernel_height, n.kernel_width, n.stride, n.top, n.bottom, n.left, n.right,
           g->bias ? "+bias" : "");
  return c;
}

static convolution_graph graph_of(const pg_call *call, int kernel, int dtype) {
  return (convolution_graph){kernel, dtype, dtype == PG_FLOAT32 && call->services->tf32(),
                             pg_present(convolution_tensors_of(call, kernel).bias), convolution_sizes(call, kernel)};
}

static pg_status run(const pg_call *call, int kernel, int dtype) {
  TRY(expect_convolution(call, kernel));
  const convolution_graph g = graph_of(call, kernel, dtype);
  const cudnn_contest c = contest_of(call, &g);
  return cudnn_contest_run(&c);
}

static int64_t scratch(const pg_call *call, int kernel, int dtype) {
  if (expect_convolution(call, kernel)) return -1;
  const convolution_graph g = graph_of(call, kernel, dtype);
  const cudnn_contest c = contest_of(call, &g);
  return cudnn_contest_scratch(&c);
}

#else

static pg_status run(const pg_call *call, int kernel, int dtype) { return run_own(call, kernel, dtype); }
static int64_t scratch(const pg_call *call, int kernel, int dtype) { return (void)call, (void)kernel, (void)dtype, 0; }

#endif

#define ENTRIES(name, kernel)                                                                                          \
  pg_status name##_cuda_float32(const pg_call *call) { return run(call, kernel, PG_FLOAT32); }                         \
  pg_status name##_cuda_bfloat16(const pg_call *call) { return run(call, kernel, PG_BFLOAT16); }                       \
  int64_t name##_scratch_cuda_float32(const pg_call *call) { return scratch(call, kernel, PG_FLOAT32); }               \
  int64_t name##_scratch_cuda_bfloat16(const pg_call *call) { return scratch(call, kernel, PG_BFLOAT16); }
ENTRIES(convolution, CONVOLUTION_FORWARD)
ENTRIES(convolution_backward_input, CONVOLUTION_INPUT)
ENTRIES(convolution_backward_weight, CONVOLUTION_WEIGHT)

/* ---- 3×3 kernels: as convolution, over a copy of the images that are enlarged ---- */

static pg_status run_3x3(const pg_call *call, int dtype) {
  pg_status status = expect_convolution_3x3(call);
  if (!status && enlarged_bytes(call))
    status = dtype == PG_FLOAT32 ? convolution_enlarge_cuda_float32(call) : convolution_enlarge_cuda_bfloat16(call);
  if (status) return status;
  const pg_call plain = plain_convolution(call);
  return run(&plain, CONVOLUTION_FORWARD, dtype);
}

static int64_t scratch_3x3(const pg_call *call, int dtype) {
  if (expect_convolution_3x3(call)) return -1;
  const pg_call plain = plain_convolution(call);
  const int64_t bytes = scratch(&plain, CONVOLUTION_FORWARD, dtype);
  return bytes < 0 ? bytes : enlarged_bytes(call) + bytes;
}

pg_status convolution_3x3_cuda_float32(const pg_call *call) { return run_3x3(call, PG_FLOAT32); }
pg_status convolution_3x3_cuda_bfloat16(const pg_call *call) { return run_3x3(call, PG_BFLOAT16); }
int64_t convolution_3x3_scratch_cuda_float32(const pg_call *call) { return scratch_3x3(call, PG_FLOAT32); }
int64_t convolution_3x3_scratch_cuda_bfloat16(const pg_call *call) { return scratch_3x3(call, PG_BFLOAT16); }
