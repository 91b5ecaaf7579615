/* CUDA kernels against their CPU twins, in every order of threads: the same call on the same memory. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include <cmocka.h>
}

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
  uint32_t bits = (uint32_t) static_cast<const uint16_t *>(data)[k] << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

struct argument {
  pg_tensor *tensor = nullptr; /* NULL: absent */
  pg_tensor *base = nullptr;   /* what `tensor` is a view of */
  bool output = false;
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
      memset(v->data, 0xff, (size_t)(pg_numel(v) * pg_dtype_bytes(v->dtype)));
    }
}

static void run_cuda(const char *name, int dtype, const std::vector<argument> &arguments, double attribute) {
  pg_call call = {};
  call.n = (int)arguments.size();
  call.f[0] = attribute;
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

static void check(const char *name, int dtype, std::vector<argument> arguments, double attribute = 0) {
  std::vector<pg_tensor *> tensors;
  for (const argument &a : arguments) tensors.push_back(a.tensor);
  const double floats[PG_MAX_ATTRIBUTES] = {attribute};
  const int64_t ints[PG_MAX_ATTRIBUTES] = {};
  poison(arguments);
  if (pg_kernel_run(pg_kernel_find(name), PG_CPU, dtype, (int)tensors.size(), tensors.data(), ints, floats) != PG_OK)
    fail_msg("%s", pg_last_error());
  auto expected = outputs_of(arguments);
  std::vector<std::vector<float>> first;
  for (int order = CUDA_ON_CPU_GREEDY; order <= CUDA_ON_CPU_RANDOM; order++) {
    cuda_on_cpu_set_order((cuda_on_cpu_order)order, 7);
    poison(arguments);
    run_cuda(name, dtype, arguments, attribute);
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
            {output(t, x), output(PG_FLOAT32, r), output(PG_FLOAT32, r), input(t, x), absent(), absent()}, 1e-6);
      check("layernorm", t,
            {output(t, x), output(PG_FLOAT32, r), output(PG_FLOAT32, r), input(t, x), input(t, w), input(t, w)}, 1e-6);
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
            1e-6);
      check("layernorm_modulate_backward", t,
            {output(t, x), output(t, m), output(t, m), input(t, x), input(t, x), input(PG_FLOAT32, r),
             input(PG_FLOAT32, r, true), slice(t, 3, d), input(t, x)});
    }
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(layernorm_agrees),
      cmocka_unit_test(layernorm_modulate_agrees),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
