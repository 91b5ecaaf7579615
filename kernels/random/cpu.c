/* No fused multiply-add in this file: random/random.h promises the same bits on every instruction set. */
#pragma GCC optimize("fp-contract=off")

#include "cpu.h"

#include "random/draw.h"
#include "random/normal.h"
#include "random/random.h"

enum { BLOCKS = 64, SMALL = 8192 }; /* Philox blocks drawn at once; elements below which one thread draws */

static draw draw_for(const pg_view *y, const pg_view *state, int64_t purpose) {
  return draw_of(state->data, purpose, elements_per_sample(y));
}

/* words[4·b + w]: word w of block `first` + b. pg_philox() for BLOCKS counters side by side, so that it vectorises. */
static void draw_blocks(const draw *d, uint64_t first, uint32_t *words) {
  uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS], k0 = d->key[0], k1 = d->key[1];
  for (int b = 0; b < BLOCKS; b++) {
    c0[b] = (uint32_t)(first + (uint64_t)b);
    c1[b] = (uint32_t)((first + (uint64_t)b) >> 32);
    c2[b] = d->step;
    c3[b] = d->purpose;
  }
  for (int round = 0; round < 10; round++) {
#pragma omp simd
    for (int b = 0; b < BLOCKS; b++) {
      uint64_t p0 = (uint64_t)0xD2511F53u * c0[b], p1 = (uint64_t)0xCD9E8D57u * c2[b];
      c0[b] = (uint32_t)(p1 >> 32) ^ c1[b] ^ k0;
      c2[b] = (uint32_t)(p0 >> 32) ^ c3[b] ^ k1;
      c1[b] = (uint32_t)p1;
      c3[b] = (uint32_t)p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int b = 0; b < BLOCKS; b++) {
    words[4 * b] = c0[b];
    words[4 * b + 1] = c1[b];
    words[4 * b + 2] = c2[b];
    words[4 * b + 3] = c3[b];
  }
}

static void uniform_from(const uint32_t *words, float *values) {
#pragma omp simd
  for (int k = 0; k < 4 * BLOCKS; k++) values[k] = draw_uniform(words[k]);
}

static void normal_from(const uint32_t *words, float *values) {
#pragma omp simd
  for (int k = 0; k < 2 * BLOCKS; k++) {
    float radius = pg_normal_radius(words[2 * k]), cosine, sine;
    pg_normal_direction(words[2 * k + 1], &cosine, &sine);
    values[2 * k] = radius * cosine;
    values[2 * k + 1] = radius * sine;
  }
}

/* y's elements are words d.first, ...; they come in groups of BLOCKS blocks, and the first may begin before y does. */
static pg_status draw_reals(const char *name, const pg_view *out, const pg_view *state, int64_t purpose,
                            void (*transform)(const uint32_t *, float *)) {
  pg_status status = expect_draw(name, out, state, purpose, PG_REAL);
  if (status) return status;
  const draw d = draw_for(out, state, purpose);
  const int64_t group = 4 * BLOCKS;
  real *y = out->data;
  int64_t n = pg_numel(out), skip = (int64_t)(d.first % 4), groups = n ? pg_pieces(n + skip, group) : 0;
#pragma omp parallel for schedule(static) if (n > SMALL)
  for (int64_t g = 0; g < groups; g++) {
    uint32_t words[4 * BLOCKS];
    float values[4 * BLOCKS];
    int64_t start = g * group - skip, from = start < 0 ? -start : 0, end = n - start < group ? n - start : group;
    draw_blocks(&d, d.first / 4 + (uint64_t)(g * BLOCKS), words);
    transform(words, values);
    for (int64_t k = from; k < end; k++) y[start + k] = store((stat)values[k]);
  }
  return PG_OK;
}

pg_status PG_CPU(random_uniform)(const pg_call *call) {
  const random_uniform_views v = random_uniform_of(call);
  return draw_reals("random_uniform", v.y, v.state, random_uniform_ints_of(call).purpose, uniform_from);
}

pg_status PG_CPU(random_normal)(const pg_call *call) {
  const random_normal_views v = random_normal_of(call);
  return draw_reals("random_normal", v.y, v.state, random_normal_ints_of(call).purpose, normal_from);
}

pg_status PG_CPU(random_integers)(const pg_call *call) {
  const random_integers_views v = random_integers_of(call);
  pg_status status = expect_integers(call);
  if (status) return status;
  const random_integers_ints i = random_integers_ints_of(call);
  const draw d = draw_for(v.y, v.state, i.purpose);
  int64_t *y = v.y->data, n = pg_numel(v.y), high = i.high;
#pragma omp parallel for schedule(static) if (n > SMALL)
  for (int64_t k = 0; k < n; k++) y[k] = draw_below(&d, d.first + (uint64_t)k, high);
  return PG_OK;
}

pg_status PG_CPU(random_permutation)(const pg_call *call) {
  const random_permutation_views v = random_permutation_of(call);
  pg_status status = expect_permutation(call);
  if (status) return status;
  const draw d = draw_for(v.y, v.state, random_permutation_ints_of(call).purpose);
  int64_t *y = v.y->data, n = v.y->shape[0];
  for (int64_t k = 0; k < n; k++) y[k] = k;
  for (int64_t k = 0; k + 1 < n; k++) {
    int64_t other = k + draw_below(&d, (uint64_t)k, n - k), swapped = y[k];
    y[k] = y[other];
    y[other] = swapped;
  }
  return PG_OK;
}
