/* Checks of the lion kernels' arguments, on every device (lion.h). */
#ifndef PERIGEE_LION_CHECK_H
#define PERIGEE_LION_CHECK_H

#include "lion/lion.h"
#include "update_check.h"

static inline pg_status expect_lion(const pg_call *call) {
  const lion_views v = lion_of(call);
  const pg_update_buffer buffers[] = {
      {"parameters", v.parameters, PG_REAL}, {"moment", v.moment, PG_REAL},     {"average", v.average, PG_REAL},
      {"working", v.working, PG_BFLOAT16},   {"gradient", v.gradient, PG_REAL},
  };
  return pg_expect_update("lion", buffers, 5, v.hyper, 6, v.square_sum);
}

#endif
