/* Stands for cuDNN's backend API: descriptors that are strict about attributes, their types and counts, and what is finished;
 * graphs of the operations that attention and convolution are made of, computed on the host one after another in the stream's
 * order.
 *
 * For a graph that is attention, forward or backward, with heads of a multiple of 8 up to 128, or a convolution, with a bias or
 * without, it offers three engines; for a convolution in float32 one more, noted as by tensor cores, which rounds what it
 * multiplies. The first is noted as nondeterministic, and writes NaN: nobody may take it. The others sum in different orders, so
 * that a program that does not stick to its choice shows. The last has a knob, and a workspace that it writes to all of;
 * attention's backward has one anyway, a map in bfloat16. A plan that is destroyed before its work has run is an error of that
 * work. */
#include "cudnn.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda_on_cpu.h"
#include "numbers.h"

enum { CARELESS = 9, FORWARD = 3, BACKWARD = 5, ROUNDING = 7, DIMENSIONS = 4, SPATIAL = 2, MOST_TENSORS = 48 };

struct cudnnContext {
  cudaStream_t stream;
};

static thread_local std::string problem;

static cudnnStatus_t fail(cudnnStatus_t status, const std::string &text) {
  problem = text;
  return status;
}

/* ---- descriptors ---- */

struct content;
struct program;
using shared = std::shared_ptr<content>;

struct attribute {
  int64_t count;
  std::vector<char> bytes;        /* of plain values */
  std::vector<shared> descriptors;
};
struct content {
  cudnnBackendDescriptorType_t type;
  bool finished = false;
  std::map<int, attribute> attributes;
  std::shared_ptr<program> compiled; /* of graphs and plans */
  int engine = 0;                    /* of engines, and what is made of them */
};
struct descriptor {
  shared content;
};

struct rule {
  cudnnBackendDescriptorType_t owner;
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  int64_t most;
  bool required;
};

#define TENSOR(owner, name) {owner, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, true}
#define CONVOLUTION_RULES(owner, name, x, w, y) \
  TENSOR(owner, CUDNN_ATTR_OPERATION_CONVOLUTION_##name##_CONV_DESC), \
  TENSOR(owner, CUDNN_ATTR_OPERATION_CONVOLUTION_##name##_##x), TENSOR(owner, CUDNN_ATTR_OPERATION_CONVOLUTION_##name##_##w), \
  TENSOR(owner, CUDNN_ATTR_OPERATION_CONVOLUTION_##name##_##y), \
  {owner, CUDNN_ATTR_OPERATION_CONVOLUTION_##name##_ALPHA, CUDNN_TYPE_FLOAT, 1, true}, \
  {owner, CUDNN_ATTR_OPERATION_CONVOLUTION_##name##_BETA, CUDNN_TYPE_FLOAT, 1, true}
static const rule rules[] = {
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, true},
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, true},
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, DIMENSIONS, true},
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, DIMENSIONS, true},
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, true},
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, false},
  {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, false},
  {CUDNN_BACKEND_MATMUL_DESCRIPTOR, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, true},
  {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, true},
  {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, true},
  {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, true},
  {CUDNN_BACKEND_REDUCTION_DESCRIPTOR, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, true},
  TENSOR(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_DESC),
  TENSOR(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_ADESC),
  TENSOR(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_BDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, CUDNN_ATTR_OPERATION_MATMUL_CDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR),
  TENSOR(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC),
  {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, false},
  TENSOR(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_DESC),
  TENSOR(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_XDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, CUDNN_ATTR_OPERATION_REDUCTION_YDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESHAPE_XDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESHAPE_YDESC),
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, true},
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, true},
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, true},
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, SPATIAL, true},
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, SPATIAL, true},
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, SPATIAL, true},
  {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, SPATIAL, true},
  CONVOLUTION_RULES(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, FORWARD, X, W, Y),
  CONVOLUTION_RULES(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, BWD_DATA, DX, W, DY),
  CONVOLUTION_RULES(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, BWD_FILTER, X, DW, DY),
  TENSOR(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC),
  TENSOR(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC),
  TENSOR(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC),
  {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, false},
  {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, true},
  {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 64, true},
  TENSOR(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH),
  {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, true},
  TENSOR(CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_OPERATION_GRAPH),
  {CUDNN_BACKEND_ENGINE_DESCRIPTOR, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, true},
  {CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, true},
  {CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, true},
  TENSOR(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_ENGINE),
  {CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS,
   false},
  {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, true},
  TENSOR(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG),
  {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 64, true},
  {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 64, true},
  {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, false},
};

static size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_INT64: return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    default: return 4; /* enumerations */
  }
}

static const rule *rule_of(cudnnBackendDescriptorType_t owner, cudnnBackendAttributeName_t name) {
  for (const rule &r : rules)
    if (r.owner == owner && r.name == name) return &r;
  return nullptr;
}

static bool has(const content &c, cudnnBackendAttributeName_t name) { return c.attributes.count(name) != 0; }

/* The k-th value of a plain attribute that is there. */
template <typename T>
static T value(const content &c, cudnnBackendAttributeName_t name, int64_t k = 0) {
  T found;
  memcpy(&found, c.attributes.at(name).bytes.data() + static_cast<size_t>(k) * sizeof found, sizeof found);
  return found;
}
static const content &part(const content &c, cudnnBackendAttributeName_t name) { return *c.attributes.at(name).descriptors[0]; }

/* ---- tensors and operations ---- */

struct tensor {
  int64_t uid = 0, shape[DIMENSIONS] = {}, stride[DIMENSIONS] = {};
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  bool between = false, by_value = false;

  int64_t elements() const { return shape[0] * shape[1] * shape[2] * shape[3]; }
  size_t element_bytes() const { return type == CUDNN_DATA_FLOAT ? 4 : 2; }
  int64_t offset(int64_t i) const { /* of the i-th element in row-major order */
    int64_t at = 0;
    for (int d = DIMENSIONS - 1; d >= 0; d--) at += i % shape[d] * stride[d], i /= shape[d];
    return at;
  }
  int64_t reach() const { return offset(elements() - 1) + 1; }
  bool operator==(const tensor &o) const {
    return uid == o.uid && !memcmp(shape, o.shape, sizeof shape) && !memcmp(stride, o.stride, sizeof stride) &&
           type == o.type && between == o.between && by_value == o.by_value;
  }
};

static tensor tensor_of(const content &c) {
  tensor t;
  t.uid = value<int64_t>(c, CUDNN_ATTR_TENSOR_UNIQUE_ID);
  for (int d = 0; d < DIMENSIONS; d++) {
    t.shape[d] = value<int64_t>(c, CUDNN_ATTR_TENSOR_DIMENSIONS, d);
    t.stride[d] = value<int64_t>(c, CUDNN_ATTR_TENSOR_STRIDES, d);
  }
  t.type = value<cudnnDataType_t>(c, CUDNN_ATTR_TENSOR_DATA_TYPE);
  t.between = has(c, CUDNN_ATTR_TENSOR_IS_VIRTUAL) && value<bool>(c, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
  t.by_value = has(c, CUDNN_ATTR_TENSOR_IS_BY_VALUE) && value<bool>(c, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
  return t;
}

static cudnnStatus_t check_tensor(const content &c) {
  for (cudnnBackendAttributeName_t name : {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_STRIDES})
    if (c.attributes.at(name).count != DIMENSIONS) return fail(CUDNN_STATUS_BAD_PARAM, "a tensor here has 4 dimensions");
  const tensor t = tensor_of(c);
  for (int d = 0; d < DIMENSIONS; d++)
    if (t.shape[d] < 1 || t.stride[d] < 1) return fail(CUDNN_STATUS_BAD_PARAM, "a size or stride below 1");
  if (t.between && t.by_value) return fail(CUDNN_STATUS_BAD_PARAM, "a tensor both virtual and by value");
  if (value<int64_t>(c, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) % static_cast<int64_t>(t.element_bytes()))
    return fail(CUDNN_STATUS_BAD_PARAM, "an alignment that does not suit the type");
  return CUDNN_STATUS_SUCCESS;
}

/* How a convolution's window moves, down and across. */
struct window {
  int64_t before[SPATIAL], after[SPATIAL], stride[SPATIAL];
};

static cudnnStatus_t check_window(const content &c) {
  if (value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != SPATIAL) return fail(CUDNN_STATUS_BAD_PARAM, "2 dimensions here");
  if (value<cudnnDataType_t>(c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
    return fail(CUDNN_STATUS_NOT_SUPPORTED, "sums in another type than float");
  for (auto name : {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS,
                    CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_ATTR_CONVOLUTION_DILATIONS}) {
    if (c.attributes.at(name).count != SPATIAL) return fail(CUDNN_STATUS_BAD_PARAM, "as many numbers as dimensions, please");
    const bool padding = name == CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS || name == CUDNN_ATTR_CONVOLUTION_POST_PADDINGS;
    for (int d = 0; d < SPATIAL; d++)
      if (value<int64_t>(c, name, d) < (padding ? 0 : 1)) return fail(CUDNN_STATUS_BAD_PARAM, "a window that moves backwards");
  }
  for (int d = 0; d < SPATIAL; d++)
    if (value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_DILATIONS, d) != 1) return fail(CUDNN_STATUS_NOT_SUPPORTED, "dilation");
  return value<cudnnConvolutionMode_t>(c, CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION
           ? CUDNN_STATUS_SUCCESS
           : fail(CUDNN_STATUS_NOT_SUPPORTED, "kernels turned round");
}

/* Results are to be the sums alone, not added to what is there. */
static bool is_plain(const content &c) {
  float expected = 1; /* alpha, and then beta */
  for (const rule &r : rules)
    if (r.owner == c.type && r.type == CUDNN_TYPE_FLOAT && value<float>(c, r.name) != expected--) return false;
  return true;
}

static window window_of(const content &c) {
  window w;
  for (int d = 0; d < SPATIAL; d++) {
    w.before[d] = value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, d);
    w.after[d] = value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, d);
    w.stride[d] = value<int64_t>(c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, d);
  }
  return w;
}

/* Convolutions' results: y, x or the kernels. */
enum kind { MATMUL, POINTWISE, REDUCTION, RESHAPE, CONVOLUTION_Y, CONVOLUTION_X, CONVOLUTION_W, ATTENTION };

static bool is_convolution(kind what) { return what >= CONVOLUTION_Y && what <= CONVOLUTION_W; }

struct operation {
  kind what;
  int mode = 0;                      /* pointwise's */
  window moves = {};                 /* convolution's */
  int x = -1, w = -1, y = -1;        /* its tensors, in whatever role */
  std::vector<int> inputs, outputs; /* tensors of the program; absent: -1 */
};

/* A graph, and later a plan. */
struct program {
  std::vector<tensor> tensors;
  std::vector<operation> operations;
  int engine = 0;
  size_t workspace = 0;
  bool gone = false;
};

static bool matches(const tensor &x, const tensor &y, bool broadcast) {
  for (int d = 0; d < DIMENSIONS; d++)
    if (x.shape[d] != y.shape[d] && !(broadcast && x.shape[d] == 1)) return false;
  return true;
}

static bool windows_fit(const operation &o, const tensor &x, const tensor &w, const tensor &y) {
  for (int d = 0; d < SPATIAL; d++) {
    const int64_t room = x.shape[2 + d] + o.moves.before[d] + o.moves.after[d] - w.shape[2 + d];
    if (room < 0 || y.shape[2 + d] != room / o.moves.stride[d] + 1) return false;
  }
  return x.shape[0] == y.shape[0] && x.shape[1] == w.shape[1] && w.shape[0] == y.shape[1];
}

static bool fits(const operation &o, const std::vector<tensor> &t) {
  const tensor &x = t[static_cast<size_t>(o.inputs[0])], &y = t[static_cast<size_t>(o.outputs[0])];
  const tensor *b = o.inputs.size() > 1 && o.inputs[1] >= 0 ? &t[static_cast<size_t>(o.inputs[1])] : nullptr;
  switch (o.what) {
    case MATMUL:
      return x.shape[3] == b->shape[2] && y.shape[2] == x.shape[2] && y.shape[3] == b->shape[3] && x.shape[0] == y.shape[0] &&
             x.shape[1] == y.shape[1] && b->shape[0] == y.shape[0] && b->shape[1] == y.shape[1];
    case POINTWISE: return matches(x, y, true) && (!b || matches(*b, y, true)) && !b == (o.mode == CUDNN_POINTWISE_EXP);
    case REDUCTION: return matches(y, x, true);
    case RESHAPE: return x.elements() == y.elements() && x.reach() == y.reach();
    case CONVOLUTION_Y:
    case CONVOLUTION_X:
    case CONVOLUTION_W:
      return windows_fit(o, t[static_cast<size_t>(o.x)], t[static_cast<size_t>(o.w)], t[static_cast<size_t>(o.y)]);
    case ATTENTION: {
      const tensor &v = t[static_cast<size_t>(o.inputs[2])], &scale = t[static_cast<size_t>(o.inputs[3])];
      const tensor *lse = o.outputs[1] >= 0 ? &t[static_cast<size_t>(o.outputs[1])] : nullptr;
      return matches(x, y, false) && matches(*b, v, false) && b->shape[3] == x.shape[3] && scale.elements() == 1 &&
             (!lse || (lse->shape[3] == 1 && lse->shape[2] == x.shape[2] && lse->type == CUDNN_DATA_FLOAT && !lse->between));
    }
  }
  return false;
}

/* The tensor's number in the program; -1: another one with its identifier is there. */
static int number_of(program *p, const content &c) {
  const tensor t = tensor_of(c);
  for (size_t k = 0; k < p->tensors.size(); k++)
    if (p->tensors[k].uid == t.uid) return p->tensors[k] == t ? static_cast<int>(k) : -1;
  p->tensors.push_back(t);
  return static_cast<int>(p->tensors.size()) - 1;
}

static cudnnStatus_t read_operation(program *p, const content &c, operation *o) {
  std::vector<cudnnBackendAttributeName_t> inputs, outputs;
  auto moves = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC;
  switch (c.type) {
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
      o->what = MATMUL;
      inputs = {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC};
      outputs = {CUDNN_ATTR_OPERATION_MATMUL_CDESC};
      break;
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
      o->what = POINTWISE;
      o->mode = value<cudnnPointwiseMode_t>(part(c, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR), CUDNN_ATTR_POINTWISE_MODE);
      inputs = {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC};
      outputs = {CUDNN_ATTR_OPERATION_POINTWISE_YDESC};
      break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
      o->what = REDUCTION;
      inputs = {CUDNN_ATTR_OPERATION_REDUCTION_XDESC};
      outputs = {CUDNN_ATTR_OPERATION_REDUCTION_YDESC};
      break;
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
      o->what = RESHAPE;
      inputs = {CUDNN_ATTR_OPERATION_RESHAPE_XDESC};
      outputs = {CUDNN_ATTR_OPERATION_RESHAPE_YDESC};
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      o->what = CONVOLUTION_Y;
      moves = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC;
      inputs = {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W};
      outputs = {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y};
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      o->what = CONVOLUTION_X;
      moves = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC;
      inputs = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W};
      outputs = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX};
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      o->what = CONVOLUTION_W;
      moves = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC;
      inputs = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X};
      outputs = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW};
      break;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
      o->what = ATTENTION;
      inputs = {CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,
                CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC};
      outputs = {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC};
      break;
    default: return fail(CUDNN_STATUS_BAD_PARAM, "not an operation");
  }
  bool clash = false;
  auto add = [&](std::vector<int> *list, cudnnBackendAttributeName_t name) {
    list->push_back(has(c, name) ? number_of(p, part(c, name)) : -1);
    clash = clash || (has(c, name) && list->back() < 0);
  };
  for (auto name : inputs) add(&o->inputs, name);
  for (auto name : outputs) add(&o->outputs, name);
  if (clash) return fail(CUDNN_STATUS_BAD_PARAM, "two different tensors of one identifier");
  if (is_convolution(o->what)) {
    if (!is_plain(c)) return fail(CUDNN_STATUS_NOT_SUPPORTED, "a convolution times alpha, or plus beta times what is there");
    const int first = o->inputs[0], second = o->inputs[1], result = o->outputs[0];
    o->moves = window_of(part(c, moves));
    o->x = o->what == CONVOLUTION_Y ? first : o->what == CONVOLUTION_X ? result : second;
    o->w = o->what == CONVOLUTION_W ? result : second;
    o->y = o->what == CONVOLUTION_Y ? result : first;
  }
  return fits(*o, p->tensors) ? CUDNN_STATUS_SUCCESS : fail(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "shapes that do not match");
}

/* One operation by itself. */
static cudnnStatus_t check_operation(const content &c) {
  program alone;
  operation o;
  return read_operation(&alone, c, &o);
}

static cudnnStatus_t check_graph(content *c) {
  auto p = std::make_shared<program>();
  std::vector<int> written(MOST_TENSORS, 0);
  for (const shared &given : c->attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).descriptors) {
    operation o;
    cudnnStatus_t status = read_operation(p.get(), *given, &o);
    if (status) return status;
    if (p->tensors.size() > MOST_TENSORS) return fail(CUDNN_STATUS_NOT_SUPPORTED, "too large a graph");
    for (int k : o.inputs)
      if (k >= 0 && p->tensors[static_cast<size_t>(k)].between && !written[static_cast<size_t>(k)])
        return fail(CUDNN_STATUS_BAD_PARAM, "a virtual tensor that nothing has written is read");
    for (int k : o.outputs)
      if (k >= 0 && (p->tensors[static_cast<size_t>(k)].by_value || written[static_cast<size_t>(k)]++))
        return fail(CUDNN_STATUS_BAD_PARAM, "a tensor by value is written, or one twice");
    p->operations.push_back(o);
  }
  c->compiled = p;
  return CUDNN_STATUS_SUCCESS;
}

/* ---- engines ---- */

/* Is it attention as engines know it? */
static bool is_attention(const program &p) {
  if (is_convolution(p.operations[0].what)) return false;
  const tensor &q = p.tensors[static_cast<size_t>(p.operations[0].inputs[0])];
  if (q.shape[3] % 8 || q.shape[3] > 128 || q.stride[3] != 1) return false;
  for (const tensor &t : p.tensors)
    if (!t.between && !t.by_value && t.shape[3] > 1 && t.type != CUDNN_DATA_BFLOAT16) return false;
  int count[ATTENTION + 1] = {};
  for (const operation &o : p.operations) count[o.what]++;
  if (count[ATTENTION]) return p.operations.size() == 1;
  return count[MATMUL] == 5 && count[REDUCTION] == 1 && count[RESHAPE] == 3;
}

/* Is it a convolution of one type of numbers, with a bias or without? */
static bool is_convolution(const program &p) {
  const operation &first = p.operations[0];
  if (!is_convolution(first.what) || p.operations.size() > 2) return false;
  for (const tensor &t : p.tensors)
    if (t.by_value || (t.between ? t.type != CUDNN_DATA_FLOAT : t.type != p.tensors[static_cast<size_t>(first.w)].type)) return false;
  if (p.operations.size() == 1) return true;
  const operation &second = p.operations[1];
  if (first.what != CONVOLUTION_Y || second.what != POINTWISE || second.mode != CUDNN_POINTWISE_ADD) return false;
  const tensor &bias = p.tensors[static_cast<size_t>(second.inputs[1])];
  return second.inputs[0] == first.y && bias.elements() == bias.shape[1];
}

/* Does it multiply float32? */
static bool is_exact(const program &p) { return p.tensors[0].type == CUDNN_DATA_FLOAT; }

static std::vector<int> engines_of(const program &p) {
  if (is_attention(p)) return {CARELESS, FORWARD, BACKWARD};
  if (!is_convolution(p)) return {};
  if (is_exact(p)) return {CARELESS, ROUNDING, FORWARD, BACKWARD};
  return {CARELESS, FORWARD, BACKWARD};
}

static size_t workspace_of(const program &p, int engine) {
  if (is_convolution(p)) return engine == BACKWARD ? 512 : 0;
  const tensor &q = p.tensors[static_cast<size_t>(p.operations[0].inputs[0])];
  const size_t map = static_cast<size_t>(q.shape[0] * q.shape[1] * q.shape[2] * q.shape[2]) * 2;
  return (p.operations.size() > 1 ? map : 0) + (engine == BACKWARD ? 512 : 0);
}

static void put(content *c, cudnnBackendAttributeName_t name, const void *bytes, size_t size) {
  const char *from = static_cast<const char *>(bytes);
  c->attributes[name] = {1, std::vector<char>(from, from + size), {}};
}

/* A finished configuration of an engine, as the heuristic gives it. */
static shared proposal(const shared &graph, int number) {
  auto make = [](cudnnBackendDescriptorType_t type) {
    auto c = std::make_shared<content>();
    c->type = type;
    c->finished = true;
    return c;
  };
  auto engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR), configuration = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  const int64_t index = number, setting = 2;
  const cudnnBackendKnobType_t knob = CUDNN_KNOB_TYPE_TILE_M;
  const cudnnBackendNumericalNote_t note = number == CARELESS ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC
                                                              : CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  const bool noted = number == CARELESS || number == ROUNDING || !is_exact(*graph->compiled);
  put(engine.get(), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, &index, sizeof index);
  if (noted) put(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, &note, sizeof note);
  else engine->attributes[CUDNN_ATTR_ENGINE_NUMERICAL_NOTE] = {0, {}, {}};
  engine->attributes[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = {1, {}, {graph}};
  configuration->attributes[CUDNN_ATTR_ENGINECFG_ENGINE] = {1, {}, {engine}};
  configuration->attributes[CUDNN_ATTR_ENGINECFG_KNOB_CHOICES] = {0, {}, {}};
  if (number == BACKWARD) {
    auto chosen = make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    put(chosen.get(), CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, &knob, sizeof knob);
    put(chosen.get(), CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, &setting, sizeof setting);
    configuration->attributes[CUDNN_ATTR_ENGINECFG_KNOB_CHOICES] = {1, {}, {chosen}};
  }
  return configuration;
}

static cudnnStatus_t check_engine(const content &c) {
  const int64_t index = value<int64_t>(c, CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  for (int engine : engines_of(*part(c, CUDNN_ATTR_ENGINE_OPERATION_GRAPH).compiled))
    if (engine == index) return CUDNN_STATUS_SUCCESS;
  return fail(CUDNN_STATUS_NOT_SUPPORTED, "no such engine for this graph");
}

static cudnnStatus_t check_configuration(const content &c) {
  const int64_t index = value<int64_t>(part(c, CUDNN_ATTR_ENGINECFG_ENGINE), CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  if (!has(c, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)) return CUDNN_STATUS_SUCCESS;
  for (const shared &knob : c.attributes.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).descriptors)
    if (index != BACKWARD || value<cudnnBackendKnobType_t>(*knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) != CUDNN_KNOB_TYPE_TILE_M ||
        value<int64_t>(*knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE) > 3)
      return fail(CUDNN_STATUS_NOT_SUPPORTED, "no such knob of this engine");
  return CUDNN_STATUS_SUCCESS;
}

/* Every plan that was made, for work that outlives it. */
static std::vector<std::shared_ptr<program>> plans;

static cudnnStatus_t make_plan(content *c) {
  const content &engine = part(part(*c, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG), CUDNN_ATTR_ENGINECFG_ENGINE);
  auto plan = std::make_shared<program>(*part(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH).compiled);
  plan->engine = static_cast<int>(value<int64_t>(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  plan->workspace = workspace_of(*plan, plan->engine);
  const int64_t bytes = static_cast<int64_t>(plan->workspace);
  put(c, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, &bytes, sizeof bytes);
  plans.push_back(plan);
  c->compiled = plan;
  return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_pack(const content &c) {
  const attribute &uids = c.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  if (uids.count != c.attributes.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count)
    return fail(CUDNN_STATUS_BAD_PARAM, "as many pointers as identifiers, please");
  for (int64_t k = 0; k < uids.count; k++)
    for (int64_t j = 0; j < k; j++)
      if (value<int64_t>(c, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, k) == value<int64_t>(c, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, j))
        return fail(CUDNN_STATUS_BAD_PARAM, "one identifier twice");
  return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t finish(content *c) {
  for (const rule &r : rules)
    if (r.owner == c->type && r.required && !has(*c, r.name))
      return fail(CUDNN_STATUS_BAD_PARAM, "attribute " + std::to_string(r.name) + " is missing");
  switch (c->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: return check_tensor(*c);
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: return check_window(*c);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: return check_operation(*c);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: return check_graph(c);
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR: return check_engine(*c);
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR: return check_configuration(*c);
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: return make_plan(c);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: return check_pack(*c);
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR: return fail(CUDNN_STATUS_NOT_SUPPORTED, "no other GPU stands here");
    default: return CUDNN_STATUS_SUCCESS;
  }
}

/* ---- the interface ---- */

size_t cudnnGetVersion(void) { return 91301; }

const char *cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED: return "CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED";
    case CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER: return "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER";
    case CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND: return "CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND";
    case CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT: return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH: return "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH";
    case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN: return "CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN";
    case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
  }
  return "an unknown status";
}

void cudnnGetLastErrorString(char *message, size_t bytes) { snprintf(message, bytes, "%s", problem.c_str()); }

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  static cudnnContext context = {nullptr};
  *handle = &context;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out) {
  auto made = new descriptor{std::make_shared<content>()};
  made->content->type = type;
  *out = made;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
  auto owner = static_cast<descriptor *>(d);
  content &c = *owner->content;
  if (c.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR && c.compiled) c.compiled->gone = true;
  delete owner;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values) {
  content &c = *static_cast<descriptor *>(d)->content;
  const rule *r = rule_of(c.type, name);
  if (!r || r->type != type || count < 1 || count > r->most || !values || c.finished)
    return fail(CUDNN_STATUS_BAD_PARAM, "attribute " + std::to_string(name) + " cannot be set so");
  attribute a = {count, {}, {}};
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (int64_t k = 0; k < count; k++) {
      auto given = static_cast<descriptor *const *>(values)[k];
      if (!given || !given->content->finished) return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a descriptor not finished");
      a.descriptors.push_back(given->content);
    }
  } else {
    auto from = static_cast<const char *>(values);
    a.bytes.assign(from, from + static_cast<size_t>(count) * size_of(type));
  }
  c.attributes[name] = a;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room, int64_t *count, void *values) {
  content &c = *static_cast<descriptor *>(d)->content;
  if (!c.finished) return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a descriptor not finished is asked");
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    const shared graph = c.attributes.at(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH).descriptors[0];
    attribute results = {0, {}, {}};
    for (int engine : engines_of(*graph->compiled)) results.descriptors.push_back(proposal(graph, engine));
    results.count = static_cast<int64_t>(results.descriptors.size());
    c.attributes[name] = results;
  }
  if (!has(c, name)) return fail(CUDNN_STATUS_BAD_PARAM, "attribute " + std::to_string(name) + " is not there");
  const attribute &a = c.attributes[name];
  *count = a.count;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (int64_t k = 0; k < room && k < a.count; k++) {
      auto given = static_cast<descriptor **>(values)[k];
      if (!given || given->content->type != a.descriptors[static_cast<size_t>(k)]->type)
        return fail(CUDNN_STATUS_BAD_PARAM, "descriptors of the type that is read have to be there");
      given->content = a.descriptors[static_cast<size_t>(k)];
    }
  } else if (a.count) {
    memcpy(values, a.bytes.data(), std::min(a.bytes.size(), static_cast<size_t>(room) * size_of(type)));
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) {
  content &c = *static_cast<descriptor *>(d)->content;
  cudnnStatus_t status = finish(&c);
  c.finished = status == CUDNN_STATUS_SUCCESS;
  return status;
}

/* ---- running ---- */

using numbers = std::vector<float>; /* of a tensor, in row-major order */

struct job {
  const program *plan;
  char *data[MOST_TENSORS], *workspace;
  float values[MOST_TENSORS]; /* of those by value */
};

static float rounded(const tensor &t, float x) { return t.type == CUDNN_DATA_FLOAT ? x : from_bfloat16(to_bfloat16(x)); }

static numbers loaded(const tensor &t, const char *data) {
  numbers out(static_cast<size_t>(t.elements()));
  for (int64_t i = 0; i < t.elements(); i++)
    out[static_cast<size_t>(i)] = t.type == CUDNN_DATA_FLOAT ? reinterpret_cast<const float *>(data)[t.offset(i)]
                                                             : from_bfloat16(reinterpret_cast<const uint16_t *>(data)[t.offset(i)]);
  return out;
}

static void stored(const tensor &t, char *data, const numbers &x) {
  for (int64_t i = 0; i < t.elements(); i++) {
    if (t.type == CUDNN_DATA_FLOAT) reinterpret_cast<float *>(data)[t.offset(i)] = x[static_cast<size_t>(i)];
    else reinterpret_cast<uint16_t *>(data)[t.offset(i)] = to_bfloat16(x[static_cast<size_t>(i)]);
  }
}

/* Row-major position in x of y's i-th element, where x is broadcast. */
static size_t position(const tensor &x, const tensor &y, int64_t i) {
  int64_t at = 0, step = 1;
  for (int d = DIMENSIONS - 1; d >= 0; d--) {
    at += (x.shape[d] == 1 ? 0 : i % y.shape[d]) * step;
    step *= x.shape[d];
    i /= y.shape[d];
  }
  return static_cast<size_t>(at);
}

struct evaluation {
  const job &j;
  std::vector<numbers> held;
  const bool backwards; /* the order of sums */

  const tensor &at(int k) const { return j.plan->tensors[static_cast<size_t>(k)]; }
  const numbers &in(int k) { return held[static_cast<size_t>(k)]; }

  /* sum over k of a_k·b_k */
  float dot(const float *a, int64_t a_step, const float *b, int64_t b_step, int64_t n) const {
    float sum = 0;
    for (int64_t i = 0; i < n; i++) {
      int64_t k = backwards ? n - 1 - i : i;
      sum += a[k * a_step] * b[k * b_step];
    }
    return sum;
  }

  numbers matmul(const operation &o) {
    const tensor &x = at(o.inputs[0]), &y = at(o.outputs[0]);
    const int64_t rows = y.shape[2], columns = y.shape[3], depth = x.shape[3];
    numbers out(static_cast<size_t>(y.elements()));
    for (int64_t m = 0; m < y.shape[0] * y.shape[1]; m++)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
          out[static_cast<size_t>((m * rows + r) * columns + c)] =
            dot(&in(o.inputs[0])[static_cast<size_t>((m * rows + r) * depth)], 1,
                &in(o.inputs[1])[static_cast<size_t>(m * depth * columns + c)], columns, depth);
    return out;
  }

  numbers pointwise(const operation &o) {
    const tensor &x = at(o.inputs[0]), &y = at(o.outputs[0]);
    numbers out(static_cast<size_t>(y.elements()));
    for (int64_t i = 0; i < y.elements(); i++) {
      const float a = in(o.inputs[0])[position(x, y, i)];
      const float b = o.inputs[1] < 0 ? 0 : in(o.inputs[1])[position(at(o.inputs[1]), y, i)];
      float &to = out[static_cast<size_t>(i)];
      switch (o.mode) {
        case CUDNN_POINTWISE_ADD: to = a + b; break;
        case CUDNN_POINTWISE_SUB: to = a - b; break;
        case CUDNN_POINTWISE_MUL: to = a * b; break;
        case CUDNN_POINTWISE_EXP: to = expf(a); break;
        default: to = NAN;
      }
    }
    return out;
  }

  numbers reduction(const operation &o) {
    const tensor &x = at(o.inputs[0]), &y = at(o.outputs[0]);
    numbers out(static_cast<size_t>(y.elements()), 0.0f);
    for (int64_t i = 0; i < x.elements(); i++) out[position(y, x, i)] += in(o.inputs[0])[static_cast<size_t>(i)];
    return out;
  }

  /* The same memory by other sizes and strides. */
  numbers reshape(const operation &o) {
    const tensor &x = at(o.inputs[0]), &y = at(o.outputs[0]);
    numbers memory(static_cast<size_t>(x.reach()), NAN), out(static_cast<size_t>(y.elements()));
    for (int64_t i = 0; i < x.elements(); i++) memory[static_cast<size_t>(x.offset(i))] = in(o.inputs[0])[static_cast<size_t>(i)];
    for (int64_t i = 0; i < y.elements(); i++) out[static_cast<size_t>(i)] = memory[static_cast<size_t>(y.offset(i))];
    return out;
  }

  /* k counted from the end where sums go backwards. */
  int64_t turn(int64_t k, int64_t n) const { return backwards ? n - 1 - k : k; }

  /* Every product of a convolution, added to the element of the result that it is part of. */
  numbers convolution(const operation &o) {
    const tensor &x = at(o.x), &w = at(o.w), &y = at(o.y);
    numbers out(static_cast<size_t>(at(o.outputs[0]).elements()), 0.0f), first = in(o.inputs[0]), second = in(o.inputs[1]);
    if (j.plan->engine == ROUNDING)
      for (numbers *operand : {&first, &second})
        for (float &number : *operand) number = tf32(number);
    auto add = [&](int64_t of_x, int64_t of_w, int64_t of_y) {
      const size_t i = static_cast<size_t>(of_x), k = static_cast<size_t>(of_w), r = static_cast<size_t>(of_y);
      if (o.what == CONVOLUTION_Y) out[r] += first[i] * second[k];
      else if (o.what == CONVOLUTION_X) out[i] += first[r] * second[k];
      else out[k] += first[r] * second[i];
    };
    const int64_t rows = y.shape[2] * y.shape[3], taps = w.shape[1] * w.shape[2] * w.shape[3];
    for (int64_t n = 0; n < y.elements(); n++) {
      const int64_t at_y = turn(n, y.elements()), image = at_y / (y.shape[1] * rows), kernel = at_y / rows % y.shape[1];
      const int64_t row = at_y % rows / y.shape[3], column = at_y % y.shape[3];
      for (int64_t k = 0; k < taps; k++) {
        const int64_t tap = turn(k, taps), channel = tap / (w.shape[2] * w.shape[3]);
        const int64_t h = row * o.moves.stride[0] + tap / w.shape[3] % w.shape[2] - o.moves.before[0];
        const int64_t v = column * o.moves.stride[1] + tap % w.shape[3] - o.moves.before[1];
        if (h >= 0 && h < x.shape[2] && v >= 0 && v < x.shape[3])
          add(((image * x.shape[1] + channel) * x.shape[2] + h) * x.shape[3] + v, kernel * taps + tap, at_y);
      }
    }
    return out;
  }

  numbers attention(const operation &o) {
    const tensor &q = at(o.inputs[0]), &k = at(o.inputs[1]);
    const int64_t rows = q.shape[2], keys = k.shape[2], size = q.shape[3];
    const float scale = in(o.inputs[3])[0];
    numbers out(static_cast<size_t>(q.elements())), lse(static_cast<size_t>(q.elements() / size)), p(static_cast<size_t>(keys));
    for (int64_t r = 0; r < q.elements() / size; r++) {
      const size_t first = static_cast<size_t>(r / rows * keys * size);
      float most = -INFINITY, total = 0;
      for (int64_t c = 0; c < keys; c++) {
        p[static_cast<size_t>(c)] = scale * dot(&in(o.inputs[0])[static_cast<size_t>(r * size)], 1,
                                                &in(o.inputs[1])[first + static_cast<size_t>(c * size)], 1, size);
        most = fmaxf(most, p[static_cast<size_t>(c)]);
      }
      for (float &x : p) total += x = expf(x - most);
      lse[static_cast<size_t>(r)] = most + logf(total);
      for (float &x : p) x = from_bfloat16(to_bfloat16(x));
      for (int64_t e = 0; e < size; e++)
        out[static_cast<size_t>(r * size + e)] =
          dot(p.data(), 1, &in(o.inputs[2])[first + static_cast<size_t>(e)], size, keys) / total;
    }
    if (o.outputs[1] >= 0) keep(o.outputs[1], lse);
    return out;
  }

  void keep(int k, numbers x) {
    for (float &value : x) value = rounded(at(k), value);
    if (!at(k).between) stored(at(k), j.data[k], x);
    held[static_cast<size_t>(k)] = std::move(x);
  }

  void run(const operation &o) {
    for (int k : o.inputs) {
      if (k < 0 || at(k).between || !held[static_cast<size_t>(k)].empty()) continue;
      held[static_cast<size_t>(k)] = at(k).by_value ? numbers{j.values[k]} : loaded(at(k), j.data[k]);
    }
    numbers out = o.what == MATMUL ? matmul(o) : o.what == POINTWISE ? pointwise(o) : o.what == REDUCTION ? reduction(o)
                : o.what == RESHAPE ? reshape(o) : is_convolution(o.what) ? convolution(o) : attention(o);
    if (j.plan->engine == CARELESS) out.assign(out.size(), NAN);
    keep(o.outputs[0], std::move(out));
  }
};

static cudaError_t run(const void *data) {
  const job &j = *static_cast<const job *>(data);
  if (j.plan->gone) return cudaErrorLaunchFailure;
  if (j.workspace) memset(j.workspace, 0xff, j.plan->workspace);
  evaluation e = {j, std::vector<numbers>(j.plan->tensors.size()), j.plan->engine == BACKWARD};
  for (const operation &o : j.plan->operations) e.run(o);
  return cudaSuccess;
}

static cudnnStatus_t aim(job *j, size_t k, void *data) {
  const tensor &t = j->plan->tensors[k];
  if (t.by_value) {
    if (cuda_on_cpu_holds(data, sizeof(float))) return fail(CUDNN_STATUS_BAD_PARAM, "a value that lies on the device");
    memcpy(&j->values[k], data, sizeof(float));
    return CUDNN_STATUS_SUCCESS;
  }
  j->data[k] = static_cast<char *>(data);
  if (reinterpret_cast<uintptr_t>(data) % 16) return fail(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "a tensor's address");
  if (!cuda_on_cpu_holds(data, static_cast<size_t>(t.reach()) * t.element_bytes()))
    return fail(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "a tensor that is not on the device");
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  const content &p = *static_cast<descriptor *>(plan)->content, &given = *static_cast<descriptor *>(pack)->content;
  if (!p.finished || !given.finished) return fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "a plan or pack not finished");
  job j = {p.compiled.get(), {}, nullptr, {}};
  const int64_t count = given.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count;
  for (size_t k = 0; k < j.plan->tensors.size(); k++) {
    if (j.plan->tensors[k].between) continue;
    cudnnStatus_t status = fail(CUDNN_STATUS_BAD_PARAM, "tensor " + std::to_string(j.plan->tensors[k].uid) + " has no address");
    for (int64_t n = 0; n < count; n++)
      if (value<int64_t>(given, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, n) == j.plan->tensors[k].uid)
        status = aim(&j, k, value<void *>(given, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, n));
    if (status) return status;
  }
  if (j.plan->workspace) {
    if (has(given, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)) j.workspace = value<char *>(given, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (!cuda_on_cpu_holds(j.workspace, j.plan->workspace) || reinterpret_cast<uintptr_t>(j.workspace) % 256)
      return fail(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, "the workspace");
  }
  return cuda_on_cpu_submit(handle->stream, run, &j, sizeof j) == cudaSuccess ? CUDNN_STATUS_SUCCESS
                                                                              : CUDNN_STATUS_EXECUTION_FAILED;
}
