#include "cuda_cudnn.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROPOSALS = 100 }; /* of an engine and its knobs, that a heuristic may make */

/* ---- statuses ---- */

static pg_status status_of(const char *op, const char *call, cudnnStatus_t code) {
  if (code == CUDNN_STATUS_SUCCESS) return PG_OK;
  char why[400] = "";
  cudnnGetLastErrorString(why, sizeof why);
  const int unsupported = code / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000;
  return pg_error(unsupported ? PG_ERROR_UNSUPPORTED : PG_ERROR_DEVICE, "%s: %s: %s%s%s", op, call, cudnnGetErrorString(code),
                  *why ? ": " : "", why);
}

#define CUDNN_TRY(op, function, ...) \
  do { \
    pg_status status_ = status_of(op, #function, function(__VA_ARGS__)); \
    if (status_) return status_; \
  } while (0)

pg_status cudnn_handle(cudnnHandle_t *handle) {
  static cudnnHandle_t made;
  if (!made) CUDNN_TRY("cuDNN", cudnnCreate, &made);
  *handle = made;
  return PG_OK;
}

/* ---- descriptors ---- */

cudnnBackendDescriptor_t cudnn_make(cudnn_graph *g, cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t d = NULL;
  if (g->status) return NULL;
  if (g->made_count == CUDNN_MOST_DESCRIPTORS) {
    g->status = pg_error(PG_ERROR_DEVICE, "%s: more than %d descriptors of cuDNN", g->op, CUDNN_MOST_DESCRIPTORS);
    return NULL;
  }
  g->status = status_of(g->op, "cudnnBackendCreateDescriptor", cudnnBackendCreateDescriptor(type, &d));
  if (!g->status) g->made[g->made_count++] = d;
  return d;
}

void cudnn_set(cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
               int64_t count, const void *values) {
  if (g->status) return;
  char call[64];
  snprintf(call, sizeof call, "cudnnBackendSetAttribute %d", (int)name);
  g->status = status_of(g->op, call, cudnnBackendSetAttribute(d, name, type, count, values));
}

void cudnn_finish(cudnn_graph *g, cudnnBackendDescriptor_t d) {
  if (!g->status) g->status = status_of(g->op, "cudnnBackendFinalize", cudnnBackendFinalize(d));
}

void cudnn_set_descriptor(cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                          cudnnBackendDescriptor_t value) {
  cudnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* For those that belong to no graph: reads of what cuDNN proposes. */
static cudnnStatus_t get(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                         int64_t room, int64_t *count, void *values) {
  int64_t found = 0;
  cudnnStatus_t code = cudnnBackendGetAttribute(d, name, type, room, &found, values);
  if (count) *count = found;
  return code;
}

cudnnBackendDescriptor_t cudnn_tensor(cudnn_graph *g, int64_t uid, cudnnDataType_t type, const int64_t shape[4],
                                      const int64_t stride[4], int kind) {
  const int64_t alignment = CUDNN_TENSOR_ALIGNMENT;
  const bool yes = true;
  cudnnBackendDescriptor_t d = cudnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
  cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, shape);
  cudnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
  cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  if (kind == CUDNN_BETWEEN) cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
  if (kind == CUDNN_BY_VALUE) cudnn_set(g, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
  cudnn_finish(g, d);
  return d;
}

pg_status cudnn_device(cudnnBackendDescriptor_t *out, const char *json) {
  cudnn_graph g = {.op = "a GPU's description"};
  *out = cudnn_make(&g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  cudnn_set(&g, *out, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json), json);
  cudnn_finish(&g, *out);
  const pg_status status = g.status;
  if (status) cudnn_graph_free(&g);
  return status;
}

/* ---- graphs ---- */

void cudnn_operation(cudnn_graph *g, cudnnBackendDescriptor_t operation) {
  cudnn_finish(g, operation);
  if (!g->status && g->operation_count == CUDNN_MOST_OPERATIONS)
    g->status = pg_error(PG_ERROR_DEVICE, "%s: more than %d operations", g->op, CUDNN_MOST_OPERATIONS);
  if (!g->status) g->operations[g->operation_count++] = operation;
}

cudnnBackendDescriptor_t cudnn_pointwise(cudnn_graph *g, cudnnPointwiseMode_t f, cudnnBackendDescriptor_t x,
                                         cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y) {
  const cudnnDataType_t in_float = CUDNN_DATA_FLOAT;
  cudnnBackendDescriptor_t how = cudnn_make(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  cudnn_set(g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &f);
  cudnn_set(g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &in_float);
  cudnn_finish(g, how);
  cudnnBackendDescriptor_t operation = cudnn_make(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  cudnn_set_descriptor(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
  cudnn_set_descriptor(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (b) cudnn_set_descriptor(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
  cudnn_set_descriptor(g, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  cudnn_operation(g, operation);
  return y;
}

pg_status cudnn_graph_finish(cudnn_graph *g) {
  g->graph = cudnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (g->handle) cudnn_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
  cudnn_set(g, g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->operation_count, g->operations);
  cudnn_finish(g, g->graph);
  return g->status;
}

void cudnn_graph_free(cudnn_graph *g) {
  while (g->made_count) cudnnBackendDestroyDescriptor(g->made[--g->made_count]);
  *g = (cudnn_graph){.op = g->op, .handle = g->handle, .device = g->device, .tensor_cores = g->tensor_cores};
}

/* ---- engines ---- */

/* Descriptors that reads fill in. */
static cudnnStatus_t make_some(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out, int n) {
  cudnnStatus_t code = CUDNN_STATUS_SUCCESS;
  for (int k = 0; k < n && !code; k++) code = cudnnBackendCreateDescriptor(type, &out[k]);
  return code;
}
static void destroy_some(cudnnBackendDescriptor_t *d, int n) {
  for (int k = 0; k < n; k++)
    if (d[k]) cudnnBackendDestroyDescriptor(d[k]);
}

/* Whether an engine with such a note is one for the graph. */
static int suits(const cudnn_graph *g, cudnnBackendNumericalNote_t note) {
  switch (note) {
    case CUDNN_NUMERICAL_NOTE_TENSOR_CORE: return g->tensor_cores;
    case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
    case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
    case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
    case CUDNN_NUMERICAL_NOTE_FFT:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD: return 0;
    default: return 1;
  }
}

static cudnnStatus_t look(const cudnn_graph *g, cudnnBackendDescriptor_t engine, int *fit) {
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t count = 0;
  cudnnStatus_t code = get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                           &count, notes);
  *fit = 1;
  for (int64_t k = 0; k < count && !code; k++) *fit = *fit && suits(g, notes[k]);
  return code;
}

/* "engine:knob=value,..." */
static cudnnStatus_t engine_text(cudnnBackendDescriptor_t configuration, cudnnBackendDescriptor_t engine, char *text) {
  cudnnBackendDescriptor_t knobs[CUDNN_KNOB_TYPE_COUNTS] = {NULL};
  int64_t number = 0, count = 0;
  cudnnStatus_t code = get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, NULL, &number);
  if (!code) code = make_some(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, knobs, CUDNN_KNOB_TYPE_COUNTS);
  if (!code)
    code = get(configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS, &count,
               knobs);
  int used = snprintf(text, CUDNN_ENGINE_TEXT, "%" PRId64 ":", number);
  for (int64_t k = 0; k < count && !code; k++) {
    cudnnBackendKnobType_t knob = CUDNN_KNOB_TYPE_COUNTS;
    int64_t value = 0;
    code = get(knobs[k], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, NULL, &knob);
    if (!code) code = get(knobs[k], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, NULL, &value);
    used += snprintf(text + used, used < CUDNN_ENGINE_TEXT ? (size_t)(CUDNN_ENGINE_TEXT - used) : 0, "%s%d=%" PRId64,
                     k ? "," : "", (int)knob, value);
    if (used >= CUDNN_ENGINE_TEXT) code = CUDNN_STATUS_NOT_SUPPORTED;
  }
  destroy_some(knobs, CUDNN_KNOB_TYPE_COUNTS);
  return code;
}

/* Writes the configuration's engine as text; an empty one where it doesn't suit the graph. */
static cudnnStatus_t describe(const cudnn_graph *g, cudnnBackendDescriptor_t configuration, char *text) {
  cudnnBackendDescriptor_t engine = NULL;
  int fit = 0;
  *text = 0;
  cudnnStatus_t code = make_some(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, 1);
  if (!code) code = get(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, NULL, &engine);
  if (!code) code = look(g, engine, &fit);
  if (!code && fit) code = engine_text(configuration, engine, text);
  destroy_some(&engine, 1);
  return code;
}

static cudnnStatus_t propose(const cudnn_graph *g, cudnnBackendDescriptor_t heuristic, char engines[][CUDNN_ENGINE_TEXT],
                             int room, int *count) {
  cudnnBackendDescriptor_t found[PROPOSALS] = {NULL};
  int64_t n = 0;
  cudnnStatus_t code = make_some(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, found, PROPOSALS);
  if (!code) code = get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, PROPOSALS, &n, found);
  for (int64_t k = 0; k < n && k < PROPOSALS && *count < room && !code; k++) {
    code = describe(g, found[k], engines[*count]);
    if (!code && *engines[*count]) (*count)++;
  }
  destroy_some(found, PROPOSALS);
  return code;
}

static pg_status engines_of_mode(cudnn_graph *g, cudnnBackendHeurMode_t mode, char engines[][CUDNN_ENGINE_TEXT], int room,
                                 int *count) {
  cudnn_graph own = {.op = g->op};
  cudnnBackendDescriptor_t heuristic = cudnn_make(&own, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  cudnn_set_descriptor(&own, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, g->graph);
  cudnn_set(&own, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (g->device) cudnn_set_descriptor(&own, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, g->device);
  cudnn_finish(&own, heuristic);
  if (!own.status) own.status = status_of(g->op, "the heuristic's results", propose(g, heuristic, engines, room, count));
  const pg_status status = own.status;
  cudnn_graph_free(&own);
  return status;
}

pg_status cudnn_engines(cudnn_graph *g, char engines[][CUDNN_ENGINE_TEXT], int room, int *count) {
  *count = 0;
  if (g->status) return g->status;
  pg_status status = engines_of_mode(g, CUDNN_HEUR_MODE_A, engines, room, count);
  if (!status && *count == 0) status = engines_of_mode(g, CUDNN_HEUR_MODE_FALLBACK, engines, room, count);
  return status;
}

/* ---- plans ---- */

static void expected_engine(cudnn_graph *g, const char *text) {
  if (!g->status) g->status = pg_error(PG_ERROR_ARGUMENT, "%s: '%s' names no engine of cuDNN", g->op, text);
}

/* Adds the knobs that a text names behind its colon. */
static void set_knobs(cudnn_graph *g, cudnnBackendDescriptor_t configuration, const char *text) {
  cudnnBackendDescriptor_t knobs[CUDNN_KNOB_TYPE_COUNTS];
  int count = 0, read = 0;
  for (const char *at = text; *at && !g->status; at += read + (at[read] == ',')) {
    int type;
    int64_t value;
    if (count == CUDNN_KNOB_TYPE_COUNTS || sscanf(at, "%d=%" SCNd64 "%n", &type, &value, &read) != 2 ||
        (at[read] && at[read] != ',')) {
      expected_engine(g, text);
      return;
    }
    const cudnnBackendKnobType_t knob = (cudnnBackendKnobType_t)type;
    knobs[count] = cudnn_make(g, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    cudnn_set(g, knobs[count], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knob);
    cudnn_set(g, knobs[count], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &value);
    cudnn_finish(g, knobs[count++]);
  }
  if (count) cudnn_set(g, configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, knobs);
}

static cudnnBackendDescriptor_t configure(cudnn_graph *g, const char *text) {
  char *end;
  const int64_t number = strtoll(text, &end, 10);
  if (end == text || *end != ':') expected_engine(g, text);
  cudnnBackendDescriptor_t engine = cudnn_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnn_set_descriptor(g, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, g->graph);
  cudnn_set(g, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &number);
  if (g->device) cudnn_set_descriptor(g, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, g->device);
  cudnn_finish(g, engine);
  cudnnBackendDescriptor_t configuration = cudnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  cudnn_set_descriptor(g, configuration, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
  if (!g->status) set_knobs(g, configuration, end + 1);
  cudnn_finish(g, configuration);
  return configuration;
}

pg_status cudnn_plan(cudnn_graph *g, const char *engine) {
  cudnnBackendDescriptor_t configuration = configure(g, engine);
  cudnnBackendDescriptor_t plan = cudnn_make(g, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  if (g->handle) cudnn_set(g, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
  if (g->device) cudnn_set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, g->device);
  cudnn_set_descriptor(g, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
  cudnn_finish(g, plan);
  if (!g->status)
    g->status = status_of(g->op, "the plan's workspace",
                          get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, NULL, &g->workspace));
  if (!g->status) g->plan = plan;
  return g->status;
}

int64_t cudnn_uid(int k) { return k + 1; }

pg_status cudnn_run(const cudnn_graph *g, int n, void *const *tensors, void *workspace, void *stream) {
  int64_t uids[CUDNN_MOST_TENSORS];
  void *data[CUDNN_MOST_TENSORS];
  int count = 0;
  for (int k = 0; k < n; k++)
    if (tensors[k]) uids[count] = cudnn_uid(k), data[count++] = tensors[k];
  cudnn_graph own = {.op = g->op};
  cudnnBackendDescriptor_t pack = cudnn_make(&own, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  cudnn_set(&own, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids);
  cudnn_set(&own, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, data);
  cudnn_set(&own, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  cudnn_finish(&own, pack);
  pg_status status = own.status;
  if (!status) status = status_of(g->op, "cudnnSetStream", cudnnSetStream(g->handle, stream));
  if (!status) status = status_of(g->op, "cudnnBackendExecute", cudnnBackendExecute(g->handle, g->plan, pack));
  cudnn_graph_free(&own);
  return status;
}
