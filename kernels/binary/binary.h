/* binary: y = f(a, b), element by element, with numpy's broadcasting.
 *   v[0] y   the broadcast shape   = ; may be a or b if that has the same shape and dtype and is contiguous
 *   v[1] a   real, int32, int64 or uint8; any strides
 *   v[2] b   a's dtype; any strides
 *   i[0]     which function, below
 * add ... minimum: y has a's dtype. Comparisons: y is uint8, 1 or 0. and, or: a, b and y are uint8, any a ≠ 0 is true.
 * Integers have no divide and no pow; sums and products wrap around; they run in the float32 instance. maximum and
 * minimum are NaN where a or b is. */
enum {
  PG_BINARY_ADD, PG_BINARY_SUBTRACT, PG_BINARY_MULTIPLY, PG_BINARY_DIVIDE, PG_BINARY_POW, PG_BINARY_MAXIMUM,
  PG_BINARY_MINIMUM, PG_BINARY_EQUAL, PG_BINARY_NOT_EQUAL, PG_BINARY_LESS, PG_BINARY_LESS_EQUAL, PG_BINARY_GREATER,
  PG_BINARY_GREATER_EQUAL, PG_BINARY_AND, PG_BINARY_OR, PG_BINARY_FUNCTIONS
};
PG_KERNEL(binary)
