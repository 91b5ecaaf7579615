/* Checks of the rotary kernel's arguments, on every device (rotary.h). */
#ifndef PERIGEE_ROTARY_CHECK_H
#define PERIGEE_ROTARY_CHECK_H

#include "rotary/rotary.h"

static pg_status expect_rotary(const pg_call *call) {
  const rotary_views v = rotary_of(call);
  const int64_t *x = v.x->shape, *turns = v.turns->shape, skip = rotary_ints_of(call).skip;
  PG_EXPECT(v.x->ndim == 5 && pg_same_shape(v.x, v.y) && x[2] == 3 && x[4] % 2 == 0,
            "rotary: x is %s, y is %s; both must be [B,N,3,H,d] with an even d", pg_shape_text(v.x), pg_shape_text(v.y));
  PG_EXPECT(skip >= 0 && skip <= x[1], "rotary: skip = %lld of x %s", (long long)skip, pg_shape_text(v.x));
  PG_EXPECT(v.turns->ndim == 4 && (turns[0] == x[0] || turns[0] == 1) && turns[1] == x[1] - skip && turns[2] == 2 &&
                turns[3] == x[4] / 2,
            "rotary: x is %s, turns are %s; they must be [%lld or 1,%lld,2,%lld]", pg_shape_text(v.x),
            pg_shape_text(v.turns), (long long)x[0], (long long)(x[1] - skip), (long long)(x[4] / 2));
  return PG_OK;
}

#endif
