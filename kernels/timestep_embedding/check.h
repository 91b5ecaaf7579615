/* Checks of the timestep_embedding kernels' arguments, on every device (timestep_embedding.h). */
#ifndef PERIGEE_TIMESTEP_EMBEDDING_CHECK_H
#define PERIGEE_TIMESTEP_EMBEDDING_CHECK_H

#include "timestep_embedding/timestep_embedding.h"

static pg_status expect_timestep_embedding(const pg_call *call) {
  const timestep_embedding_views v = timestep_embedding_of(call);
  const timestep_embedding_floats floats = timestep_embedding_floats_of(call);
  PG_EXPECT(v.t->ndim == 1 && v.y->ndim == 2 && v.y->shape[0] == v.t->shape[0],
            "timestep_embedding: t is %s, y is %s; expected [B] and [B,width]", pg_shape_text(v.t), pg_shape_text(v.y));
  PG_EXPECT(floats.max_period > 0, "timestep_embedding: max_period %g; it must be positive", floats.max_period);
  return PG_OK;
}

#endif
