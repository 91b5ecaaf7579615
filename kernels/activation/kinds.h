/* The activation functions by number. */
#ifndef PERIGEE_ACTIVATION_KINDS_H
#define PERIGEE_ACTIVATION_KINDS_H

/* A kind's number is its place, from 1. functions.h defines each, and its derivative as NAME_derivative. */
#define PG_ACTIVATIONS(X) \
  X(gelu_tanh)            \
  X(gelu_erf)             \
  X(silu)                 \
  X(quick_gelu)

/* The attribute `kind`. DERIVATIVE + kind stands for "times the derivative at a saved pre-activation". */
#define KIND(name) ACTIVATION_##name,
enum {
  ACTIVATION_NONE,
  PG_ACTIVATIONS(KIND)
  ACTIVATION_END, ACTIVATION_DERIVATIVE = ACTIVATION_END - 1
};
#undef KIND

#endif
