/* where: y = condition ≠ 0 ? a : b, element by element, with numpy's broadcasting.
 *   v[0] y          any dtype, the broadcast shape   = ; may be a or b if that has the same shape and is contiguous
 *   v[1] condition  uint8, any strides
 *   v[2] a          y's dtype, any strides
 *   v[3] b          y's dtype, any strides
 * The instance does not matter. */
PG_KERNEL(where)
