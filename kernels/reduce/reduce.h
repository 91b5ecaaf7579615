/* reduce: y = the sum, mean, largest or smallest over some dimensions of x.
 *   v[0] y   x's dtype; integers: a sum is int64   = ; as many elements as the dimensions of x that stay
 *   v[1] x   real, int32, int64 or uint8
 *   i[0]     which function: its place below
 *   i[1]     bit d is set if dimension d is reduced
 * Sums are partial sums of fixed pieces (of 4096 elements, or 64 rows), added in order: the same bits whatever the number
 * of threads. bfloat16 adds in float32. The largest and smallest are NaN if there is a NaN. Integers have no mean; they
 * run in the float32 instance. Of no elements the sum is 0, the mean NaN, the largest -inf, the smallest inf. */
#define PG_REDUCE(X) \
  X(sum)             \
  X(mean)            \
  X(max)             \
  X(min)
#define PG_REDUCE_NUMBER(name) PG_REDUCE_##name,
enum { PG_REDUCE(PG_REDUCE_NUMBER) PG_REDUCE_FUNCTIONS };
PG_KERNEL(reduce)
PG_KERNEL_PLAN(reduce)
/* argmax: the place, from 0, of the largest element along one dimension; the first one of equals, NaN above all.
 *   v[0] y   int64 [outer · inner]   =
 *   v[1] x   real [.., N, ..]
 *   i[0]     the dimension */
PG_KERNEL(argmax)
