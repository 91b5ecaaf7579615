/* Activation functions, element by element. i[0] kind (kinds.h). */

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
