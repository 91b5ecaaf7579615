/* unary: y = f(x), element by element.
 *   v[0] y   real, or int32, int64, uint8 where listed   = ; may be x
 *   v[1] x   the same dtype and shape; any strides (where y is x: contiguous)
 *   i[0]     which function, below
 *   f[0..1]  its constants
 * affine is a·x + b, clamp takes low and high, pow the exponent. round goes to nearest, ties to even. Integers have
 * negative, absolute, square, sign, affine and clamp; they run in the float32 instance. */
enum {
  PG_UNARY_NEGATIVE, PG_UNARY_ABSOLUTE, PG_UNARY_EXP, PG_UNARY_LOG, PG_UNARY_SQRT, PG_UNARY_RSQRT, PG_UNARY_SQUARE,
  PG_UNARY_SIN, PG_UNARY_COS, PG_UNARY_TANH, PG_UNARY_SIGMOID, PG_UNARY_RELU, PG_UNARY_ERF, PG_UNARY_FLOOR,
  PG_UNARY_ROUND, PG_UNARY_SIGN, PG_UNARY_RECIPROCAL, PG_UNARY_AFFINE, PG_UNARY_CLAMP, PG_UNARY_POW, PG_UNARY_ATAN,
  PG_UNARY_FUNCTIONS
};
PG_KERNEL(unary)
