/* Where in Philox's stream a call draws, and integers below a bound: what the random kernels of every device share. */
#ifndef PERIGEE_RANDOM_DRAW_H
#define PERIGEE_RANDOM_DRAW_H

#include "philox.h"
#include "random/random.h"

typedef struct draw {
  uint32_t key[2], step, purpose;
  uint64_t first; /* index of y's first element */
} draw;

/* From the three numbers of `state`: seed, step, first sample. */
PG_PHILOX_INLINE draw draw_of(const int64_t *state, int64_t purpose, uint64_t per_sample) {
  draw d;
  d.key[0] = (uint32_t)(uint64_t)state[0];
  d.key[1] = (uint32_t)((uint64_t)state[0] >> 32);
  d.step = (uint32_t)(uint64_t)state[1];
  d.purpose = (uint32_t)purpose;
  d.first = (uint64_t)state[2] * per_sample;
  return d;
}

/* Four words of the stream. */
PG_PHILOX_INLINE void draw_block(const draw *d, uint64_t block, uint32_t out[4]) {
  const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), d->step, d->purpose};
  pg_philox(counter, d->key, out);
}

PG_PHILOX_INLINE float draw_uniform(uint32_t word) { return (float)(int32_t)(word >> 8) * 5.96046448e-8f; /* 2^-24 */ }

PG_PHILOX_INLINE int64_t draw_below(const draw *d, uint64_t index, int64_t high) {
  uint32_t out[4];
  draw_block(d, index / 2, out);
  uint64_t r = index % 2 ? (uint64_t)out[2] << 32 | out[3] : (uint64_t)out[0] << 32 | out[1];
  return (int64_t)(((unsigned __int128)r * (uint64_t)high) >> 64);
}

static uint64_t elements_per_sample(const pg_view *y) {
  uint64_t per_sample = 1;
  for (int k = 1; k < y->ndim; k++) per_sample *= (uint64_t)y->shape[k];
  return per_sample;
}

static pg_status expect_draw(const char *name, const pg_view *y, const pg_view *state, int64_t purpose, int dtype) {
  PG_EXPECT(y->dtype == dtype && pg_contiguous(y), "%s: y is %s; expected %s, contiguous", name,
            pg_dtype_name(y->dtype), pg_dtype_name(dtype));
  PG_EXPECT(state->dtype == PG_INT64 && pg_numel(state) == 3 && pg_contiguous(state),
            "%s: the state is %s %s; expected int64 [3]: seed, step, first sample", name,
            pg_dtype_name(state->dtype), pg_shape_text(state));
  PG_EXPECT(purpose >= 0 && purpose <= INT32_MAX, "%s: purpose %lld is not a number below 2^31", name,
            (long long)purpose);
  return PG_OK;
}

static pg_status expect_integers(const pg_call *call) {
  const random_integers_views v = random_integers_of(call);
  const random_integers_ints n = random_integers_ints_of(call);
  PG_EXPECT(n.high >= 1, "random_integers: high is %lld, expected at least 1", (long long)n.high);
  return expect_draw("random_integers", v.y, v.state, n.purpose, PG_INT64);
}

static pg_status expect_permutation(const pg_call *call) {
  const random_permutation_views v = random_permutation_of(call);
  PG_EXPECT(v.y->ndim == 1, "random_permutation: y is %s, expected one dimension", pg_shape_text(v.y));
  const int64_t purpose = random_permutation_ints_of(call).purpose;
  return expect_draw("random_permutation", v.y, v.state, purpose, PG_INT64);
}

#endif
