/* The loader's draws: a permutation for each epoch, flips and shifts for each position. Every number is Philox of
 * the seed as key and (position, purpose) as counter. */
#include <stdlib.h>

#include "loader.h"
#include "philox.h"

enum { PURPOSE_ORDER = 0x6f726472, PURPOSE_FLIP = 0x666c6970, PURPOSE_CROP = 0x63726f70 }; /* "ordr" "flip" "crop" */

static void draw(uint64_t seed, uint32_t purpose, uint64_t a, uint32_t b, uint32_t out[4]) {
  const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  const uint32_t counter[4] = {(uint32_t)a, (uint32_t)(a >> 32), b, purpose};
  pg_philox(counter, key, out);
}

/* A number in [0, bound), bound < 2^32, from 64 random bits: uneven by less than 2^-32. */
static uint32_t below(uint32_t high, uint32_t low, uint32_t bound) {
  uint64_t r = (uint64_t)high << 32 | low;
  return (uint32_t)(((unsigned __int128)r * bound) >> 64);
}

/* Fisher and Yates: from the last place down, each place swaps with one at or before it. */
static void shuffle(uint32_t *p, uint32_t count, uint64_t seed, int64_t epoch) {
  for (uint32_t k = 0; k < count; k++) p[k] = k;
  for (uint32_t k = count - 1; k > 0; k--) {
    uint32_t random[4];
    draw(seed, PURPOSE_ORDER, (uint64_t)epoch, k, random);
    uint32_t j = below(random[0], random[1], k + 1), swapped = p[k];
    p[k] = p[j];
    p[j] = swapped;
  }
}

pg_status pg_order_at(pg_order *order, const pg_loader_options *o, int64_t position, int64_t *index) {
  int64_t epoch = position / o->count, place = position % o->count;
  *index = place;
  if (!o->shuffle) return PG_OK;
  if (!order->permutation) order->permutation = pg_host_calloc((size_t)o->count, sizeof *order->permutation);
  if (!order->permutation) return pg_error(PG_ERROR_MEMORY, "loader: out of memory");
  if (order->epoch != epoch) shuffle(order->permutation, (uint32_t)o->count, o->seed, epoch);
  order->epoch = epoch;
  *index = order->permutation[place];
  return PG_OK;
}

void pg_order_free(pg_order *order) { pg_host_free(order->permutation); }

pg_augmentation pg_augmentation_at(const pg_loader_options *o, int64_t position) {
  pg_augmentation a = {false, 0, 0};
  uint32_t random[4];
  if (o->flip == PG_FLIP_ALWAYS) a.flip = true;
  else if (o->flip) {
    draw(o->seed, PURPOSE_FLIP, (uint64_t)position, 0, random);
    a.flip = random[0] >> 31;
  }
  if (o->crop_padding > 0) {
    uint32_t places = 2 * (uint32_t)o->crop_padding + 1;
    draw(o->seed, PURPOSE_CROP, (uint64_t)position, 0, random);
    a.down = (int64_t)below(random[0], random[1], places) - o->crop_padding;
    a.right = (int64_t)below(random[2], random[3], places) - o->crop_padding;
  }
  return a;
}
