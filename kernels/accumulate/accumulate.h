/* accumulate: total = first ? scale·x : total + scale·x, element by element. Sums the gradients of a batch's pieces.
 *   v[0] total  real or stat, any shape   = or +=, in place
 *   v[1] x      real, the same number of elements
 *   i[0] first  1: total's contents are not read
 *   f[0] scale */
PG_KERNEL(accumulate)
