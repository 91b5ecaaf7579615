#include "cpu.h"
#include "rotary/check.h"
#include "rotary/rotary.h"

/* Rotates one head's vector, `sign` being −1 for the inverse. */
static void rotate(real *x, const stat *cosines, const stat *sines, stat sign, int64_t half, int interleaved) {
  int64_t step = interleaved ? 2 : 1, other = interleaved ? 1 : half;
#pragma omp simd
  for (int64_t i = 0; i < half; i++) {
    stat a = load(x[i * step]), b = load(x[i * step + other]), c = cosines[i], s = sign * sines[i];
    x[i * step] = store(a * c - b * s);
    x[i * step + other] = store(a * s + b * c);
  }
}

pg_status PG_CPU(rotary)(const pg_call *call) {
  const rotary_views v = rotary_of(call);
  const rotary_ints i = rotary_ints_of(call);
  pg_status status = expect_rotary(call);
  if (status) return status;
  int64_t tokens = v.x->shape[1], heads = v.x->shape[3], d = v.x->shape[4], row = 3 * heads * d;
  int64_t turned = tokens - i.skip, an_image = v.turns->shape[0] == 1 ? 0 : turned * d;
  stat sign = i.inverse ? -1 : 1;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < v.x->shape[0] * tokens; r++) {
    real *y = (real *)v.y->data + r * row;
    if (v.y->data != v.x->data) memcpy(y, (const real *)v.x->data + r * row, (size_t)row * sizeof *y);
    int64_t image = r / tokens, token = r % tokens - i.skip;
    if (token < 0) continue;
    const stat *turns = (const stat *)v.turns->data + image * an_image + token * d;
    for (int64_t k = 0; k < 2 * heads; k++) rotate(y + k * d, turns, turns + d / 2, sign, d / 2, (int)i.interleaved);
  }
  return PG_OK;
}
