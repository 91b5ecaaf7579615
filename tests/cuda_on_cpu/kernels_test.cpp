/* CUDA kernels against their CPU twins, in every order of threads: the same call on the same memory. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include <cmocka.h>
}

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_on_cpu.h"
#include "kernel_table.h"

static uint64_t random_state;
static float uniform() { /* in [-1, 1) */
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

static float number_at(const void *data, int dtype, int64_t k) {
  if (dtype == PG_FLOAT32) return static_cast<const float *>(data)[k];
  if (dtype == PG_INT64) return (float)static_cast<const int64_t *>(data)[k];
  uint32_t bits = (uint32_t) static_cast<const uint16_t *>(data)[k] << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

struct argument {
  pg_tensor *tensor = nullptr; /* NULL: absent */
  pg_tensor *base = nullptr;   /* what `tensor` is a view of */
  bool output = false;
  bool changed = false; /* an output that is read first: every run begins with the same */
  std::vector<unsigned char> start = {};
};

struct attributes {
  std::vector<double> f;
  std::vector<int64_t> i = {};
};

static argument absent() { return {}; }

static argument output(int dtype, std::vector<int64_t> shape) {
  argument a;
  a.output = true;
  assert_int_equal(pg_tensor_new(&a.tensor, PG_CPU, PG_PURPOSE_OTHER, dtype, (int)shape.size(), shape.data()), PG_OK);
  return a;
}

/* Numbers in [-1, 1), or for what only has to be positive, [0.5, 1.5). */
static argument input(int dtype, std::vector<int64_t> shape, bool positive = false) {
  argument a = output(dtype, shape);
  a.output = false;
  const pg_view *v = pg_tensor_info(a.tensor);
  for (int64_t k = 0; k < pg_numel(v); k++) {
    float x = positive ? 1.0f + uniform() / 2 : uniform();
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (dtype == PG_FLOAT32) static_cast<float *>(v->data)[k] = x;
    else static_cast<uint16_t *>(v->data)[k] = (uint16_t)(bits >> 16);
  }
  return a;
}

static argument in_place(argument a) {
  const pg_view *v = pg_tensor_info(a.tensor);
  const unsigned char *bytes = static_cast<const unsigned char *>(v->data);
  a.start.assign(bytes, bytes + pg_numel(v) * pg_dtype_bytes(v->dtype));
  a.output = a.changed = true;
  return a;
}

/* One label a row, from 0. */
static argument labels(int dtype, int64_t rows, int64_t classes) {
  argument a = output(dtype, {rows});
  a.output = false;
  void *data = pg_tensor_info(a.tensor)->data;
  for (int64_t r = 0; r < rows; r++) {
    int64_t label = r * 7919 % classes;
    if (dtype == PG_INT32) static_cast<int32_t *>(data)[r] = (int32_t)label;
    else static_cast<int64_t *>(data)[r] = label;
  }
  return a;
}

static argument float64_numbers(std::vector<double> values) {
  argument a = output(PG_FLOAT64, {(int64_t)values.size()});
  a.output = false;
  memcpy(pg_tensor_info(a.tensor)->data, values.data(), values.size() * sizeof(double));
  return a;
}

/* The last third of every row of a [B,1,3·D] tensor: rows in one piece, far apart. */
static argument slice(int dtype, int64_t images, int64_t width) {
  argument a;
  a.base = input(dtype, {images, 1, 3 * width}).tensor;
  const int64_t shape[] = {images, 1, width}, stride[] = {3 * width, 3 * width, 1};
  assert_int_equal(pg_tensor_view(&a.tensor, a.base, 2 * width, dtype, 3, shape, stride), PG_OK);
  return a;
}

static const pg_kernel_instance *cuda_kernel(const char *name, int dtype) {
  for (const pg_cuda_kernel_entry *e = pg_cuda_kernel_table; e->name; e++)
    if (!strcmp(e->name, name)) return &e->instance[dtype];
  fail_msg("no kernel %s in the table", name);
  return nullptr;
}

static std::vector<std::vector<float>> outputs_of(const std::vector<argument> &arguments) {
  std::vector<std::vector<float>> all;
  for (const argument &a : arguments) {
    if (!a.tensor || !a.output) continue;
    const pg_view *v = pg_tensor_info(a.tensor);
    all.emplace_back();
    for (int64_t k = 0; k < pg_numel(v); k++) all.back().push_back(number_at(v->data, v->dtype, k));
  }
  return all;
}

static void poison(const std::vector<argument> &arguments) {
  for (const argument &a : arguments)
    if (a.tensor && a.output) {
      const pg_view *v = pg_tensor_info(a.tensor);
      if (a.changed) memcpy(v->data, a.start.data(), a.start.size());
      else memset(v->data, 0xff, (size_t)(pg_numel(v) * pg_dtype_bytes(v->dtype)));
    }
}

static void run_cuda(const char *name, int dtype, const std::vector<argument> &arguments,
                     const attributes &given) {
  pg_call call = {};
  call.n = (int)arguments.size();
  std::copy(given.f.begin(), given.f.end(), call.f);
  std::copy(given.i.begin(), given.i.end(), call.i);
  for (size_t k = 0; k < arguments.size(); k++) {
    call.v[k].ndim = -1;
    if (arguments[k].tensor) call.v[k] = *pg_tensor_info(arguments[k].tensor);
  }
  const pg_kernel_instance *kernel = cuda_kernel(name, dtype);
  std::vector<unsigned char> scratch(kernel->scratch ? (size_t)kernel->scratch(&call) : 0, 0xff);
  call.scratch = scratch.data();
  call.scratch_bytes = (int64_t)scratch.size();
  if (kernel->run(&call) != PG_OK) fail_msg("%s", pg_last_error());
}

/* An element may be off by tolerance·(|expected| + mean |expected|). */
static void compare(const char *what, const std::vector<float> &got, const std::vector<float> &expected,
                    float tolerance) {
  float mean = 0;
  for (float x : expected) mean += fabsf(x) / (float)expected.size();
  for (size_t k = 0; k < expected.size(); k++)
    if (!(fabsf(got[k] - expected[k]) <= tolerance * (fabsf(expected[k]) + mean)))
      fail_msg("%s: element %zu is %g, expected %g", what, k, (double)got[k], (double)expected[k]);
}

static void check(const char *name, int dtype, std::vector<argument> arguments, const attributes &given = {}) {
  std::vector<pg_tensor *> tensors;
  for (const argument &a : arguments) tensors.push_back(a.tensor);
  double floats[PG_MAX_ATTRIBUTES] = {};
  int64_t ints[PG_MAX_ATTRIBUTES] = {};
  std::copy(given.f.begin(), given.f.end(), floats);
  std::copy(given.i.begin(), given.i.end(), ints);
  poison(arguments);
  if (pg_kernel_run(pg_kernel_find(name), PG_CPU, dtype, (int)tensors.size(), tensors.data(), ints, floats) != PG_OK)
    fail_msg("%s", pg_last_error());
  auto expected = outputs_of(arguments);
  std::vector<std::vector<float>> first;
  for (int order = CUDA_ON_CPU_GREEDY; order <= CUDA_ON_CPU_RANDOM; order++) {
    cuda_on_cpu_set_order((cuda_on_cpu_order)order, 7);
    poison(arguments);
    run_cuda(name, dtype, arguments, given);
    auto got = outputs_of(arguments);
    for (size_t k = 0; k < got.size(); k++) compare(name, got[k], expected[k], dtype == PG_FLOAT32 ? 1e-5f : 1e-2f);
    if (order == CUDA_ON_CPU_GREEDY) first = got;
    else assert_true(got == first); /* bit for bit in every order */
  }
  cuda_on_cpu_set_order(CUDA_ON_CPU_GREEDY, 0);
  for (argument &a : arguments) {
    if (a.tensor) pg_tensor_release(a.tensor);
    if (a.base) pg_tensor_release(a.base);
  }
}

static const int dtypes[] = {PG_FLOAT32, PG_BFLOAT16};
static const int64_t widths[] = {1, 31, 32, 33, 72, 257, 384};

static void layernorm_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : widths) {
      const int64_t rows = 37;
      std::vector<int64_t> x = {rows, d}, r = {rows}, w = {d};
      check("layernorm", t,
            {output(t, x), output(PG_FLOAT32, r), output(PG_FLOAT32, r), input(t, x), absent(), absent()}, {{1e-6}});
      check("layernorm", t,
            {output(t, x), output(PG_FLOAT32, r), output(PG_FLOAT32, r), input(t, x), input(t, w), input(t, w)},
            {{1e-6}});
      check("layernorm_backward", t,
            {output(t, x), output(t, w), output(t, w), input(t, x), input(t, x), input(PG_FLOAT32, r),
             input(PG_FLOAT32, r, true), input(t, w), input(t, x)});
      check("layernorm_backward", t,
            {output(t, x), absent(), absent(), input(t, x), input(t, x), input(PG_FLOAT32, r),
             input(PG_FLOAT32, r, true), absent(), absent()});
    }
}

static void layernorm_modulate_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : widths) {
      std::vector<int64_t> x = {3, 65, d}, r = {3, 65}, m = {3, 1, d};
      check("layernorm_modulate", t,
            {output(t, x), output(PG_FLOAT32, r), output(PG_FLOAT32, r), input(t, x), slice(t, 3, d), slice(t, 3, d)},
            {{1e-6}});
      check("layernorm_modulate_backward", t,
            {output(t, x), output(t, m), output(t, m), input(t, x), input(t, x), input(PG_FLOAT32, r),
             input(PG_FLOAT32, r, true), slice(t, 3, d), input(t, x)});
    }
}

/* ---- reductions ---- */

static void reduce_agrees(void **) {
  struct {
    std::vector<int64_t> shape;
    int64_t mask;
    std::vector<int64_t> kept;
  } cases[] = {{{1}, 1, {}},           {{33}, 1, {}},           {{257}, 0, {257}},         {{31, 257}, 1, {257}},
               {{31, 257}, 2, {31}},   {{32, 72}, 3, {}},       {{2, 20000}, 2, {2}},      {{20001}, 1, {}},
               {{3, 700, 72}, 2, {3, 72}}, {{5000, 3}, 1, {3}}, {{65, 3, 257}, 5, {3}},    {{2, 3, 4, 72}, 5, {3, 72}},
               {{2, 3, 4, 33}, 10, {2, 4}}, {{0, 5}, 1, {5}},   {{300, 1}, 2, {300, 1}},   {{2500, 8}, 2, {2500}}};
  for (int t : dtypes)
    for (const auto &c : cases)
      for (int64_t which = 0; which < 4; which++) {
        if (c.shape[0] == 0 && which != 0) continue; /* NaN and infinities have no distance */
        check("reduce", t, {output(t, c.kept), input(t, c.shape)}, {{}, {which, c.mask}});
      }
}

static void argmax_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : widths) {
      check("argmax", t, {output(PG_INT64, {9}), input(t, {9, d})}, {{}, {1}});
      check("argmax", t, {output(PG_INT64, {d}), input(t, {9, d})}, {{}, {0}});
    }
}

static const int64_t row_widths[] = {1, 31, 32, 33, 72, 257, 2051, 2056};

static void softmax_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : row_widths) {
      std::vector<int64_t> x = {9, d};
      for (const char *name : {"softmax", "log_softmax"}) {
        check(name, t, {output(t, x), input(t, x)});
        check((std::string(name) + "_backward").c_str(), t, {output(t, x), input(t, x), input(t, x)});
      }
    }
}

static void cross_entropy_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : row_widths)
      for (double smoothing : {0.0, 0.1}) {
        const int64_t rows = 9;
        int integer = smoothing > 0 ? PG_INT32 : PG_INT64;
        check("cross_entropy", t,
              {output(PG_FLOAT32, {}), output(PG_FLOAT32, {rows}), input(t, {rows, d}), labels(integer, rows, d)},
              {{smoothing}});
        check("cross_entropy_backward", t,
              {output(t, {rows, d}), input(PG_FLOAT32, {}), input(t, {rows, d}), labels(integer, rows, d),
               input(PG_FLOAT32, {rows})},
              {{smoothing}});
      }
}

static void mse_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : row_widths) {
      std::vector<int64_t> x = {3, 2, d};
      check("mse", t, {output(PG_FLOAT32, {}), output(PG_FLOAT32, {3}), input(t, x), input(t, x)});
      check("mse", t, {output(PG_FLOAT32, {}), absent(), input(t, x), input(t, x)});
      check("mse_backward", t,
            {output(t, x), output(t, x), input(PG_FLOAT32, {}), input(PG_FLOAT32, {3}), input(t, x), input(t, x)});
      check("mse_backward", t, {output(t, x), absent(), input(PG_FLOAT32, {}), absent(), input(t, x), input(t, x)});
    }
}

static void feature_alignment_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : widths) {
      std::vector<int64_t> x = {2, 9, d}, r = {2, 9};
      argument norms[] = {output(PG_FLOAT32, r), output(PG_FLOAT32, r), output(PG_FLOAT32, r)};
      check("feature_alignment", t, {output(PG_FLOAT32, {}), norms[0], norms[1], norms[2], input(t, x), input(t, x)});
      check("feature_alignment_backward", t,
            {output(t, x), input(PG_FLOAT32, {}), input(PG_FLOAT32, r, true), input(PG_FLOAT32, r, true),
             input(PG_FLOAT32, r), input(t, x), input(t, x)});
    }
}

static void gradient_fork_agrees(void **) {
  for (int t : dtypes)
    for (int64_t d : {(int64_t)1, (int64_t)31, (int64_t)32, (int64_t)33, (int64_t)72, (int64_t)257, (int64_t)1700}) {
      std::vector<int64_t> x = {3, 5, d};
      check("gradient_fork", t, {output(t, x), output(PG_FLOAT32, {3, 3}), input(t, x), input(t, x)});
    }
}

static void optimizer_agrees(void **) {
  const int f = PG_FLOAT32;
  for (int64_t n : {1, 31, 32, 33, 72, 257, 4099, 40003})
    for (int t : dtypes) check("square_sum", t, {output(f, {}), input(t, {n})});
  for (int64_t n : {1, 31, 32, 33, 72, 257, 4099})
    for (double clip : {0.0, 0.5}) {
      auto state = [&](bool positive) { return in_place(input(f, {n}, positive)); };
      argument hyper = float64_numbers({1e-2, 0.9, 0.999, 1e-8, 0.1, clip, 0.99, 3});
      bool all = clip > 0;
      check("adamw", f,
            {state(false), state(false), state(true), all ? state(false) : absent(),
             all ? output(PG_BFLOAT16, {n}) : absent(), input(f, {n}), hyper, input(f, {}, true)});
    }
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(layernorm_agrees),
      cmocka_unit_test(layernorm_modulate_agrees),
      cmocka_unit_test(reduce_agrees),
      cmocka_unit_test(argmax_agrees),
      cmocka_unit_test(softmax_agrees),
      cmocka_unit_test(cross_entropy_agrees),
      cmocka_unit_test(mse_agrees),
      cmocka_unit_test(feature_alignment_agrees),
      cmocka_unit_test(gradient_fork_agrees),
      cmocka_unit_test(optimizer_agrees),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
