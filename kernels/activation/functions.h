/* The activation functions and their derivatives, shared by the activation and the matmul kernels of every device. */
#ifndef PERIGEE_ACTIVATION_FUNCTIONS_H
#define PERIGEE_ACTIVATION_FUNCTIONS_H

#include "activation/kinds.h"

#define SQRT_2_OVER_PI ((stat)0.79788456080286535588)
#define SQRT_HALF ((stat)0.70710678118654752440)
#define ONE_OVER_SQRT_2PI ((stat)0.39894228040143267794)
#define GELU_CUBIC ((stat)0.044715)
#define QUICK_GELU_SLOPE ((stat)1.702)

/* GELU, tanh approximation (arXiv 1606.08415): x/2·(1 + tanh u) with u = √(2/π)·(x + 0.044715·x³), that is x·σ(2u). */
PG_FUNCTION stat gelu_tanh(stat x) { return x * pg_sigmoid(2 * SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)); }
PG_FUNCTION stat gelu_tanh_derivative(stat x) {
  stat s = pg_sigmoid(2 * SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
  return s + x * s * (1 - s) * (2 * SQRT_2_OVER_PI) * (1 + 3 * GELU_CUBIC * x * x);
}

/* GELU: x·Φ(x). */
PG_FUNCTION stat gelu_erf(stat x) { return (stat)0.5 * x * (1 + pg_erf(SQRT_HALF * x)); }
PG_FUNCTION stat gelu_erf_derivative(stat x) {
  return (stat)0.5 * (1 + pg_erf(SQRT_HALF * x)) + x * ONE_OVER_SQRT_2PI * pg_exp((stat)-0.5 * x * x);
}

/* SiLU: x·σ(x). */
PG_FUNCTION stat silu(stat x) { return x * pg_sigmoid(x); }
PG_FUNCTION stat silu_derivative(stat x) {
  stat s = pg_sigmoid(x);
  return s * (1 + x * (1 - s));
}

/* QuickGELU (CLIP): x·σ(1.702·x), an approximation of GELU (arXiv 1606.08415, section 2). */
PG_FUNCTION stat quick_gelu(stat x) { return x * pg_sigmoid(QUICK_GELU_SLOPE * x); }
PG_FUNCTION stat quick_gelu_derivative(stat x) {
  stat s = pg_sigmoid(QUICK_GELU_SLOPE * x);
  return s + QUICK_GELU_SLOPE * x * s * (1 - s);
}

/* An epilogue's activation of x: a function of it, or x times a derivative at `at`; x itself for ACTIVATION_NONE. */
PG_FUNCTION stat activate(stat x, stat at, int activation) {
  switch (activation) {
#define CASE(function) \
  case ACTIVATION_##function: return function(x); \
  case ACTIVATION_DERIVATIVE + ACTIVATION_##function: return x * function##_derivative(at);
    PG_ACTIVATIONS(CASE)
#undef CASE
  default: return x;
  }
}

#endif
