/* No fused multiply-add in this file: random/random.h promises the same bits on every instruction set. */
#pragma GCC optimize("fp-contract=off")

#include "cpu.h"

#include "random/normal.h"
#include "random/random.h"

enum { BLOCKS = 64, SMALL = 8192 }; /* Philox blocks drawn at once; elements below which one thread draws */

typedef struct draw {
  uint32_t key[2], step, purpose;
  uint64_t first; /* index of y's first element */
} draw;

static pg_status draw_of(const char *name, const pg_call *call, int dtype, draw *d) {
  const pg_view *y = &call->v[0], *state = &call->v[1];
  PG_EXPECT(y->dtype == dtype && pg_contiguous(y), "%s: y has dtype %d, expected %d, contiguous", name, y->dtype,
            dtype);
  PG_EXPECT(state->dtype == PG_INT64 && pg_numel(state) == 3 && pg_contiguous(state),
            "%s: the state is %s with dtype %d, expected int64 [3]: seed, step, first sample", name,
            pg_shape_text(state), state->dtype);
  PG_EXPECT(call->i[0] >= 0 && call->i[0] <= INT32_MAX, "%s: purpose %lld is not a number below 2^31", name,
            (long long)call->i[0]);
  const int64_t *s = state->data;
  d->key[0] = (uint32_t)(uint64_t)s[0];
  d->key[1] = (uint32_t)((uint64_t)s[0] >> 32);
  d->step = (uint32_t)(uint64_t)s[1];
  d->purpose = (uint32_t)call->i[0];
  uint64_t per_sample = 1;
  for (int k = 1; k < y->ndim; k++) per_sample *= (uint64_t)y->shape[k];
  d->first = (uint64_t)s[2] * per_sample;
  return PG_OK;
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
  for (int k = 0; k < 4 * BLOCKS; k++) values[k] = (float)(int32_t)(words[k] >> 8) * 5.96046448e-8f; /* 2^-24 */
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
static pg_status draw_reals(const char *name, const pg_call *call, void (*transform)(const uint32_t *, float *)) {
  draw d;
  pg_status status = draw_of(name, call, PG_REAL, &d);
  if (status) return status;
  const int64_t group = 4 * BLOCKS;
  real *y = call->v[0].data;
  int64_t n = pg_numel(&call->v[0]), skip = (int64_t)(d.first % 4), groups = n ? (n + skip + group - 1) / group : 0;
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

pg_status PG_CPU(random_uniform)(const pg_call *call) { return draw_reals("random_uniform", call, uniform_from); }
pg_status PG_CPU(random_normal)(const pg_call *call) { return draw_reals("random_normal", call, normal_from); }

static int64_t draw_below(const draw *d, uint64_t index, int64_t high) {
  const uint64_t block = index / 2;
  const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), d->step, d->purpose};
  uint32_t out[4];
  pg_philox(counter, d->key, out);
  const uint32_t *pair = out + 2 * (index % 2);
  uint64_t r = (uint64_t)pair[0] << 32 | pair[1];
  return (int64_t)(((unsigned __int128)r * (uint64_t)high) >> 64);
}

pg_status PG_CPU(random_integers)(const pg_call *call) {
  draw d;
  pg_status status = draw_of("random_integers", call, PG_INT64, &d);
  if (status) return status;
  int64_t *y = call->v[0].data, n = pg_numel(&call->v[0]), high = call->i[1];
  PG_EXPECT(high >= 1, "random_integers: high is %lld, expected at least 1", (long long)high);
#pragma omp parallel for schedule(static) if (n > SMALL)
  for (int64_t k = 0; k < n; k++) y[k] = draw_below(&d, d.first + (uint64_t)k, high);
  return PG_OK;
}

pg_status PG_CPU(random_permutation)(const pg_call *call) {
  draw d;
  pg_status status = draw_of("random_permutation", call, PG_INT64, &d);
  if (status) return status;
  PG_EXPECT(call->v[0].ndim == 1, "random_permutation: y is %s, expected one dimension", pg_shape_text(&call->v[0]));
  int64_t *y = call->v[0].data, n = call->v[0].shape[0];
  for (int64_t k = 0; k < n; k++) y[k] = k;
  for (int64_t k = 0; k + 1 < n; k++) {
    int64_t other = k + draw_below(&d, (uint64_t)k, n - k), swapped = y[k];
    y[k] = y[other];
    y[other] = swapped;
  }
  return PG_OK;
}
