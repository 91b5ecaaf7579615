/* Activation functions, element by element. i[0] kind: 1 gelu_tanh, 2 gelu_erf, 3 silu (functions.h). */

/* y = f(x)
 *   v[0] y      real [...]   =, may be x
 *   v[1] x      real [...]
 *   i[0] kind */
PG_KERNEL(activation)

/* dx = dy·f'(x)
 *   v[0] dx     real [...]   =, may be dy
 *   v[1] dy     real [...]
 *   v[2] x      real [...]
 *   i[0] kind */
PG_KERNEL(activation_backward)
