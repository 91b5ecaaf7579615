/* What the timestep_embedding kernels of every device ask of their arguments (timestep_embedding.h). */
#ifndef PERIGEE_TIMESTEP_EMBEDDING_CHECK_H
#define PERIGEE_TIMESTEP_EMBEDDING_CHECK_H

#include "kernel.h"

static pg_status expect_timestep_embedding(const pg_call *call) {
  const pg_view *y = &call->v[0], *t = &call->v[1];
  PG_EXPECT(t->ndim == 1 && y->ndim == 2 && y->shape[0] == t->shape[0],
            "timestep_embedding: t is %s, y is %s; expected [B] and [B,width]", pg_shape_text(t), pg_shape_text(y));
  PG_EXPECT(call->f[0] > 0, "timestep_embedding: max_period %g; it must be positive", call->f[0]);
  return PG_OK;
}

#endif
