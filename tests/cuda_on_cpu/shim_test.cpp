/* The stand-in for a GPU itself: kernels that are right give the right result in every order; those with a mistake are
 * found out. */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
extern "C" {
#include <cmocka.h>
}

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#define PG_REAL 0
#define PG_SUFFIX _test
#include "cuda.h"

struct run_order {
  cuda_on_cpu_order order;
  uint64_t seed;
};
static const run_order orders[] = {{CUDA_ON_CPU_GREEDY, 0},
                                   {CUDA_ON_CPU_ASCENDING, 0},
                                   {CUDA_ON_CPU_DESCENDING, 0},
                                   {CUDA_ON_CPU_RANDOM, 1},
                                   {CUDA_ON_CPU_RANDOM, 2}};
static const int order_count = sizeof orders / sizeof *orders;

/* A set of orders as bits. */
static const unsigned no_order = 0, every_order = (1u << order_count) - 1;

/* Calls `run` in every order; which of them returned false. */
template <typename Run> static unsigned wrong_in(Run run) {
  unsigned wrong = 0;
  for (int k = 0; k < order_count; k++) {
    cuda_on_cpu_set_order(orders[k].order, orders[k].seed);
    if (!run()) wrong |= 1u << k;
  }
  cuda_on_cpu_set_order(CUDA_ON_CPU_GREEDY, 0);
  return wrong;
}

/* Whether a launch fails, in every order, with `text` in the message. */
template <typename Kernel> static void expect_failure(Kernel kernel, int threads, const char *text) {
  for (const run_order &o : orders) {
    cuda_on_cpu_set_order(o.order, o.seed);
    float out[1024] = {};
    LAUNCH(kernel, 1, threads, 0, nullptr, out);
    assert_int_equal(pg_launched("an op"), PG_ERROR_DEVICE);
    const char *message = pg_last_error();
    if (!strstr(message, text) || strncmp(message, "an op: ", 7))
      fail_msg("\"%s\", expected \"%s\" in it", message, text);
  }
  cuda_on_cpu_set_order(CUDA_ON_CPU_GREEDY, 0);
}

/* ---- barriers ---- */

/* Reverses 256 elements, `rounds` times; without one of the barriers if so told. */
static __global__ void reverse(float *data, int rounds, bool first_barrier, bool second_barrier) {
  PG_SHARED(float, row, [256]);
  float mine = data[threadIdx.x];
  for (int k = 0; k < rounds; k++) {
    row[threadIdx.x] = mine;
    if (first_barrier) __syncthreads();
    mine = row[255 - threadIdx.x];
    if (second_barrier) __syncthreads();
  }
  data[threadIdx.x] = mine;
}

static bool reverses(int rounds, bool first_barrier, bool second_barrier) {
  float data[256];
  for (int k = 0; k < 256; k++) data[k] = (float)k;
  LAUNCH(reverse, 1, 256, 0, nullptr, data, rounds, first_barrier, second_barrier);
  assert_int_equal(pg_launched("reverse"), PG_OK);
  for (int k = 0; k < 256; k++)
    if (data[k] != (float)(rounds % 2 ? 255 - k : k)) return false;
  return true;
}

static void barriers_order_threads(void **) {
  assert_int_equal(wrong_in([] { return reverses(3, true, true); }), no_order);
}

static void a_missing_barrier_shows(void **) {
  assert_int_equal(wrong_in([] { return reverses(1, false, true); }), every_order);
  assert_int_not_equal(wrong_in([] { return reverses(2, true, false); }), no_order);
}

/* Neighbours in a warp exchange elements through shared memory, without meeting in between. */
static __global__ void swap_neighbours(float *data, bool meet) {
  PG_SHARED(float, row, [64]);
  row[threadIdx.x] = data[threadIdx.x];
  if (meet) __syncwarp();
  data[threadIdx.x] = row[threadIdx.x ^ 1];
}

static bool swaps(bool meet) {
  float data[64];
  for (int k = 0; k < 64; k++) data[k] = (float)k;
  LAUNCH(swap_neighbours, 1, 64, 0, nullptr, data, meet);
  assert_int_equal(pg_launched("swap"), PG_OK);
  for (int k = 0; k < 64; k++)
    if (data[k] != (float)(k ^ 1)) return false;
  return true;
}

static void a_missing_syncwarp_shows(void **) {
  assert_int_equal(wrong_in([] { return swaps(true); }), no_order);
  assert_int_equal(wrong_in([] { return swaps(false); }), every_order);
}

static __global__ void two_barriers(float *) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
static __global__ void early_return(float *) {
  if (threadIdx.x % 2) return;
  __syncthreads();
}
static __global__ void half_a_barrier(float *out) {
  if (threadIdx.x < 32) __syncthreads();
  out[threadIdx.x] = 1.0f;
}

static void barriers_that_part_are_found(void **) {
  expect_failure(two_barriers, 64, "while others of the block wait at");
  expect_failure(early_return, 64, "returned");
  expect_failure(half_a_barrier, 64, "returned");
}

/* ---- warps ---- */

static __global__ void shuffles(float *out) {
  float x = (float)threadIdx.x;
  float sum = warp_sum(x), up = __shfl_up_sync(PG_ALL_LANES, x, 3), down = __shfl_down_sync(PG_ALL_LANES, x, 5);
  float eighth = __shfl_sync(PG_ALL_LANES, x, 2, 8);
  unsigned odd = __ballot_sync(PG_ALL_LANES, threadIdx.x & 1);
  out[threadIdx.x * 5] = sum;
  out[threadIdx.x * 5 + 1] = up;
  out[threadIdx.x * 5 + 2] = down;
  out[threadIdx.x * 5 + 3] = eighth;
  out[threadIdx.x * 5 + 4] = (float)(odd == 0xaaaaaaaau && __any_sync(PG_ALL_LANES, x == 40) == (threadIdx.x >= 32));
}

static void shuffles_move_lanes(void **) {
  unsigned wrong = wrong_in([] {
    float out[64 * 5];
    LAUNCH(shuffles, 1, 64, 0, nullptr, out);
    assert_int_equal(pg_launched("shuffles"), PG_OK);
    for (int k = 0; k < 64; k++) {
      int lane = k % 32, first = k - lane;
      const float expected[5] = {(float)(496 + 32 * first), (float)(lane < 3 ? k : k - 3),
                                 (float)(lane + 5 > 31 ? k : k + 5), (float)(k / 8 * 8 + 2), 1.0f};
      if (memcmp(expected, out + k * 5, sizeof expected)) return false;
    }
    return true;
  });
  assert_int_equal(wrong, no_order);
}

/* Halves of a warp meet by themselves. */
static __global__ void halves(float *out) {
  unsigned mask = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
  float x = (float)threadIdx.x;
  for (int offset = 8; offset; offset /= 2) x += __shfl_xor_sync(mask, x, offset);
  out[threadIdx.x] = x;
}

static void parts_of_a_warp_meet(void **) {
  unsigned wrong = wrong_in([] {
    float out[32];
    LAUNCH(halves, 1, 32, 0, nullptr, out);
    assert_int_equal(pg_launched("halves"), PG_OK);
    for (int k = 0; k < 32; k++)
      if (out[k] != (k < 16 ? 120.0f : 376.0f)) return false;
    return true;
  });
  assert_int_equal(wrong, no_order);
}

static __global__ void lane_that_returned(float *out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = warp_sum(1.0f);
}
static __global__ void not_in_the_mask(float *out) { out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 1); }
static __global__ void reads_outside_the_mask(float *out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

static void mistaken_masks_are_found(void **) {
  expect_failure(lane_that_returned, 32, "returned");
  expect_failure(lane_that_returned, 24, "returned or never were");
  expect_failure(not_in_the_mask, 32, "is not in its own mask");
  expect_failure(reads_outside_the_mask, 32, "which the mask 0x0000ffff does not name");
}

/* ---- shared and global memory ---- */

static __global__ void overrun_array(float *) {
  PG_SHARED(float, row, [64]);
  volatile float *past = row;
  past[threadIdx.x + 1] = 0.0f;
}
static __global__ void overrun_dynamic(float *) {
  PG_SHARED_DYNAMIC(float, row);
  volatile float *past = row;
  past[threadIdx.x] = 0.0f;
}
static __global__ void misaligned_vector(float *out) {
  stat v[4];
  load_vector(v, out + 1);
  out[8] = v[0];
}

/* A launch that the sanitizer ends, or, without one, the checks at the end of the block. */
template <typename Kernel>
static void expect_overrun(Kernel kernel, size_t shared_bytes, const char *sanitizer_says, bool without_sanitizer) {
#ifdef __SANITIZE_ADDRESS__
  (void)without_sanitizer;
  int ends[2], status;
  char text[4096] = "";
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    float out[64];
    LAUNCH(kernel, 1, 64, shared_bytes, nullptr, out);
    _exit(0);
  }
  close(ends[1]);
  size_t length = 0;
  for (ssize_t n; length + 1 < sizeof text && (n = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
    length += (size_t)n;
  close(ends[0]); /* a longer report ends with SIGPIPE */
  waitpid(child, &status, 0);
  if (!status || !strstr(text, sanitizer_says)) fail_msg("expected \"%s\", got: %s", sanitizer_says, text);
#else
  (void)sanitizer_says;
  float out[64];
  LAUNCH(kernel, 1, 64, shared_bytes, nullptr, out);
  assert_int_equal(pg_launched("overrun"), without_sanitizer ? PG_ERROR_DEVICE : PG_OK);
#endif
}

static void overruns_are_found(void **) {
  expect_overrun(overrun_array, 0, "use-after-poison", true);
  expect_overrun(overrun_dynamic, 63 * sizeof(float), "use-after-poison", true);
  expect_overrun(misaligned_vector, 0, "misaligned address", false);
}

static __global__ void fresh_memory(float *out) {
  PG_SHARED(float, row, [64]);
  PG_SHARED_DYNAMIC(float, dynamic);
  out[blockIdx.x * 64 + threadIdx.x] = (float)(isnan(row[threadIdx.x]) && isnan(dynamic[threadIdx.x]));
  row[threadIdx.x] = dynamic[threadIdx.x] = 0.0f;
}

static void every_block_starts_with_nan(void **) {
  unsigned wrong = wrong_in([] {
    float out[3 * 64] = {};
    LAUNCH(fresh_memory, 3, 64, 64 * sizeof(float), nullptr, out);
    assert_int_equal(pg_launched("fresh"), PG_OK);
    for (float x : out)
      if (x != 1.0f) return false;
    return true;
  });
  assert_int_equal(wrong, no_order);
}

static __global__ void count_up(int *counter, int *seen) { seen[atomicAdd(counter, 1)]++; }

static void atomics_count(void **) {
  unsigned wrong = wrong_in([] {
    int counter = 0;
    std::vector<int> seen(5 * 96);
    LAUNCH(count_up, 5, 96, 0, nullptr, &counter, seen.data());
    assert_int_equal(pg_launched("count"), PG_OK);
    for (int n : seen)
      if (n != 1) return false;
    return counter == 5 * 96;
  });
  assert_int_equal(wrong, no_order);
}

static __global__ void where_am_i(int *out) {
  int64_t t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int64_t b = blockIdx.x + gridDim.x * (blockIdx.y + (int64_t)gridDim.y * blockIdx.z);
  out[b * blockDim.x * blockDim.y * blockDim.z + t]++;
}

static void grids_have_three_dimensions(void **) {
  unsigned wrong = wrong_in([] {
    std::vector<int> out(2 * 3 * 4 * 5 * 6 * 7);
    LAUNCH(where_am_i, dim3(2, 3, 4), dim3(5, 6, 7), 0, nullptr, out.data());
    assert_int_equal(pg_launched("where"), PG_OK);
    for (int n : out)
      if (n != 1) return false;
    return true;
  });
  assert_int_equal(wrong, no_order);
}

static void launches_that_no_gpu_takes_are_refused(void **) {
  float out[1];
  LAUNCH(half_a_barrier, 1, 1025, 0, nullptr, out);
  assert_int_equal(pg_launched("too many threads"), PG_ERROR_DEVICE);
  LAUNCH(half_a_barrier, 1, 1, 200 << 10, nullptr, out);
  assert_int_equal(pg_launched("too much shared memory"), PG_ERROR_DEVICE);
  LAUNCH(half_a_barrier, dim3(1, 70000), 1, 0, nullptr, out);
  assert_int_equal(pg_launched("too high"), PG_ERROR_DEVICE);
  LAUNCH(half_a_barrier, 0, 1, 0, nullptr, out);
  assert_int_equal(pg_launched("empty"), PG_OK);
}

/* ---- asynchronous copies ---- */

static __global__ void copies(float *out, const float *in, bool wait) {
  PG_SHARED(float, tile, [2][32 * 4]);
  float *first = tile[0] + threadIdx.x * 4, *second = tile[1] + threadIdx.x * 4;
  copy_async(first, in + threadIdx.x * 4);
  copy_commit();
  copy_async(second, in + threadIdx.x * 4, 8);
  copy_commit();
  if (wait) copy_wait<1>();
  for (int k = 0; k < 4; k++) out[threadIdx.x * 8 + k] = first[k];
  if (wait) copy_wait<0>();
  for (int k = 0; k < 4; k++) out[threadIdx.x * 8 + 4 + k] = second[k];
}

static void copies_arrive_when_waited_for(void **) {
  alignas(16) float in[32 * 4];
  float out[32 * 8];
  for (int k = 0; k < 32 * 4; k++) in[k] = (float)k + 1;
  LAUNCH(copies, 1, 32, 0, nullptr, out, in, true);
  assert_int_equal(pg_launched("copies"), PG_OK);
  for (int k = 0; k < 32 * 8; k++) assert_true(out[k] == (k % 8 < 6 ? (float)(k / 8 * 4 + k % 4 + 1) : 0.0f));
  LAUNCH(copies, 1, 32, 0, nullptr, out, in, false);
  assert_int_equal(pg_launched("copies"), PG_OK);
  for (int k = 0; k < 32 * 8; k++) assert_true(std::isnan(out[k]));
}

/* ---- matrices ---- */

static float number(int k) { return (float)(k * 37 % 61 - 30) / 16.0f; } /* held by bfloat16 */
static uint16_t bits_of(float x) { return (uint16_t)pack_bfloat16(x, 0.0f); }

/* C[16][8] = A[16][16]·B[16][8] from bfloat16 in memory; `swapped`: with two registers of A in the wrong order. */
static __global__ void multiply_bfloat16(float *c, const uint16_t *a, const uint16_t *b, bool swapped) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned left[4], right[2];
  for (int k = 0; k < 4; k++) {
    int row = g + (k % 2) * 8, column = 2 * t + (k / 2) * 8;
    left[swapped ? (k * 2) % 4 + k / 2 : k] = a[row * 16 + column] | (unsigned)a[row * 16 + column + 1] << 16;
  }
  for (int k = 0; k < 2; k++) right[k] = b[(2 * t + 8 * k) * 8 + g] | (unsigned)b[(2 * t + 8 * k + 1) * 8 + g] << 16;
  float sum[4] = {};
  mma_bfloat16(sum, left, right);
  for (int k = 0; k < 4; k++) c[(g + k / 2 * 8) * 8 + 2 * t + k % 2] = sum[k];
}

/* The same, operands through shared memory and ldmatrix. */
static __global__ void multiply_loaded(float *c, const uint16_t *a, const uint16_t *b, bool) {
  PG_SHARED(uint16_t, left, [16][16]);
  PG_SHARED(uint16_t, right, [16][8]);
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int k = lane; k < 256; k += 32) left[k / 16][k % 16] = a[k];
  for (int k = lane; k < 128; k += 32) right[k / 8][k % 8] = b[k];
  __syncwarp();
  unsigned fragment_a[4], fragment_b[4];
  load_matrices(fragment_a, &left[lane % 16][lane / 16 * 8]);
  load_matrices_transposed(fragment_b, &right[lane % 16][0]);
  float sum[4] = {};
  mma_bfloat16(sum, fragment_a, fragment_b);
  for (int k = 0; k < 4; k++) c[(g + k / 2 * 8) * 8 + 2 * t + k % 2] = sum[k];
}

static bool is_product(const float *c) {
  const int depth = 16;
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 8; j++) {
      float sum = 0.0f;
      for (int k = 0; k < depth; k++) sum += number(i * depth + k) * number(1000 + k * 8 + j);
      if (fabsf(c[i * 8 + j] - sum) > 1e-4f) return false;
    }
  return true;
}

template <typename Kernel> static unsigned wrong_products(Kernel kernel, bool swapped) {
  return wrong_in([=] {
    uint16_t a[256], b[128];
    float c[128];
    for (int k = 0; k < 256; k++) a[k] = bits_of(number(k));
    for (int k = 0; k < 128; k++) b[k] = bits_of(number(1000 + k));
    LAUNCH(kernel, 1, 32, 0, nullptr, c, a, b, swapped);
    assert_int_equal(pg_launched("mma"), PG_OK);
    return is_product(c);
  });
}

static void matrices_multiply_in_the_documented_layout(void **) {
  assert_int_equal(wrong_products(multiply_bfloat16, false), no_order);
  assert_int_equal(wrong_products(multiply_bfloat16, true), every_order);
  assert_int_equal(wrong_products(multiply_loaded, false), no_order);
}

int main() {
  const CMUnitTest tests[] = {
      cmocka_unit_test(barriers_order_threads),        cmocka_unit_test(a_missing_barrier_shows),
      cmocka_unit_test(a_missing_syncwarp_shows),      cmocka_unit_test(barriers_that_part_are_found),
      cmocka_unit_test(shuffles_move_lanes),           cmocka_unit_test(parts_of_a_warp_meet),
      cmocka_unit_test(mistaken_masks_are_found),      cmocka_unit_test(overruns_are_found),
      cmocka_unit_test(every_block_starts_with_nan),   cmocka_unit_test(atomics_count),
      cmocka_unit_test(grids_have_three_dimensions),   cmocka_unit_test(launches_that_no_gpu_takes_are_refused),
      cmocka_unit_test(copies_arrive_when_waited_for), cmocka_unit_test(matrices_multiply_in_the_documented_layout),
  };
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}
