/* Checks of the adamw kernels' arguments, on every device (adamw.h). */
#ifndef PERIGEE_ADAMW_CHECK_H
#define PERIGEE_ADAMW_CHECK_H

#include "adamw/adamw.h"
#include "update_check.h"

static inline pg_status expect_adamw(const pg_call *call) {
  const adamw_views v = adamw_of(call);
  const pg_update_buffer buffers[] = {
      {"parameters", v.parameters, PG_REAL}, {"first_moment", v.first_moment, PG_REAL},
      {"second_moment", v.second_moment, PG_REAL}, {"average", v.average, PG_REAL},
      {"working", v.working, PG_BFLOAT16}, {"gradient", v.gradient, PG_REAL},
  };
  return pg_expect_update("adamw", buffers, 6, v.hyper, 8, v.square_sum);
}

#endif
