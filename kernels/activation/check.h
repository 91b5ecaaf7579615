/* Checks of the activation kernels' arguments, on every device (activation.h). */
#ifndef PERIGEE_ACTIVATION_CHECK_H
#define PERIGEE_ACTIVATION_CHECK_H

#include "activation/activation.h"
#include "activation/functions.h"

static pg_status expect_alike(const char *name, const pg_view *result, const pg_view *x) {
  PG_EXPECT(pg_same_shape(result, x), "%s: shapes %s and %s must match", name, pg_shape_text(result), pg_shape_text(x));
  return PG_OK;
}

static pg_status expect_kind(const char *name, int64_t kind) {
  PG_EXPECT(kind >= 1 && kind < ACTIVATION_END, "%s: kind %lld; 1 to %d exist", name, (long long)kind,
            ACTIVATION_END - 1);
  return PG_OK;
}

static pg_status expect_activation(const pg_call *call) {
  const activation_views v = activation_of(call);
  pg_status status = expect_alike("activation", v.y, v.x);
  return status ? status : expect_kind("activation", activation_ints_of(call).kind);
}

static pg_status expect_activation_backward(const pg_call *call) {
  const activation_backward_views v = activation_backward_of(call);
  pg_status status = expect_alike("activation_backward", v.dx, v.dy);
  if (status == PG_OK) status = expect_alike("activation_backward", v.dx, v.x);
  return status ? status : expect_kind("activation_backward", activation_backward_ints_of(call).kind);
}

#endif
