/* The activation functions by number. */
#ifndef PERIGEE_ACTIVATION_KINDS_H
#define PERIGEE_ACTIVATION_KINDS_H

/* Kinds, as attributes name them. DERIVATIVE + kind stands for "times the derivative at a saved pre-activation". */
enum {
  ACTIVATION_NONE = 0,
  ACTIVATION_GELU_TANH = 1,
  ACTIVATION_GELU_ERF = 2,
  ACTIVATION_SILU = 3,
  ACTIVATION_DERIVATIVE = 3
};

#endif
