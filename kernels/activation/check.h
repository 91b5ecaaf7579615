/* What the activation kernels of every device ask of their arguments (activation.h). */
#ifndef PERIGEE_ACTIVATION_CHECK_H
#define PERIGEE_ACTIVATION_CHECK_H

#include "activation/functions.h"
#include "kernel.h"

static pg_status expect_activation(const char *name, const pg_call *call, int views) {
  for (int k = 1; k < views; k++)
    PG_EXPECT(pg_present(call, k) && pg_same_shape(&call->v[0], &call->v[k]), "%s: shapes %s and %s must match", name,
              pg_shape_text(&call->v[0]), pg_shape_text(&call->v[k]));
  PG_EXPECT(call->i[0] >= 1 && call->i[0] < ACTIVATION_END, "%s: kind %lld; 1 to %d exist", name,
            (long long)call->i[0], ACTIVATION_END - 1);
  return PG_OK;
}

#endif
