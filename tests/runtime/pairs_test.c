/* Products of bfloat16 in pairs (matmul/element.h), bit for bit what the processor's manual says of VDPBF16PS: for the
 * second depth and then for the first a fused multiply-add, rounded to nearest even. Built twice (CMakeLists.txt): with the plain
 * C, and with the instruction, which also takes subnormal numbers for zeros; that is skipped where the processor lacks it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define PG_REAL 2
#include "cpu.h"

#include "matmul/element.h"

#ifdef __AVX512BF16__
enum { FLUSHES = 1 };
#else
enum { FLUSHES = 0 };
#endif

enum { TRIES = 20000 };

static uint32_t random_word(void) { /* xorshift64 */
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

/* Random sign and fraction, an exponent from `least` to `most`. */
static uint32_t random_number(int least, int most) {
  uint32_t exponent = (uint32_t)(127 + least) + random_word() % (uint32_t)(most - least + 1);
  return (random_word() & 0x807fffffu) | exponent << 23;
}

static float number(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static float flushed(float x) { return FLUSHES && fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x; }

static float added(float sum, real x, real y) {
  return flushed(fmaf(flushed(load(x)), flushed(load(y)), flushed(sum)));
}

/* A lane whose operands hold these depths, against two fused multiply-adds. */
static void expect_lane(float sum, const real x[2], const real y[2]) {
  float sums[LANES], expected = added(added(sum, x[1], y[1]), x[0], y[0]);
  for (int l = 0; l < LANES; l++) sums[l] = sum;
  vector v;
  memcpy(&v, sums, sizeof v);
  v = accumulate(v, broadcast(make_element(x, 1, 2)), broadcast(make_element(y, 1, 2)));
  memcpy(sums, &v, sizeof v);
  for (int l = 0; l < LANES; l++)
    if (memcmp(&sums[l], &expected, sizeof expected))
      fail_msg("lane %d: %a + %a·%a + %a·%a is %a, and not %a", l, sum, load(x[1]), load(y[1]), load(x[0]), load(y[0]),
               expected, sums[l]);
}

/* Exponents near enough that sums round, and cancel. */
static void test_rounds_as_the_instruction(void **state) {
  (void)state;
  for (int k = 0; k < TRIES; k++) {
    real x[2], y[2];
    for (int d = 0; d < 2; d++) {
      x[d] = (real)(random_number(-8, 8) >> 16);
      y[d] = (real)(random_number(-8, 8) >> 16);
    }
    if (k % 4 == 0) y[0] = y[1], x[0] = x[1] ^ 0x8000; /* the second depth's product goes again */
    expect_lane(k % 3 ? number(random_number(-12, 12)) : 0, x, y);
  }
}

/* The only things in which plain C may differ. */
static void test_flushes_subnormal_numbers(void **state) {
  (void)state;
  if (!FLUSHES) skip();
  const real one[2] = {0x3f80, 0}, subnormal[2] = {0x0001, 0}, least[2] = {0x0080, 0}, half[2] = {0x3f00, 0};
  expect_lane(0, one, subnormal);
  expect_lane(number(0x00000001), one, one);
  expect_lane(number(0x00000001), subnormal, one);
  expect_lane(0, least, half);
  expect_lane(number(0x80800000), least, half);
}

static void test_a_missing_depth_is_zero(void **state) {
  (void)state;
  const real x[3] = {0x4040, 0x7fc0, 0x40a0};
  assert_int_equal(make_element(x, 1, 1), 0x4040);
  assert_int_equal(make_element(x, 2, 2), 0x40a04040);
  assert_int_equal(element_count(5), 3);
}

int main(void) {
#ifdef __AVX512BF16__
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bf16")) {
    puts("skipped: this processor has no AVX-512 BF16");
    return 0;
  }
#endif
  static const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rounds_as_the_instruction),
      cmocka_unit_test(test_flushes_subnormal_numbers),
      cmocka_unit_test(test_a_missing_depth_is_zero),
  };
  return cmocka_run_group_tests_name(FLUSHES ? "pairs by the instruction" : "pairs by plain C", tests, NULL, NULL);
}
