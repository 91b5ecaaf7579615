/* Cubic convolution: R. Keys, "Cubic convolution interpolation for digital image processing" (1981). */
#ifndef PERIGEE_CUBIC_H
#define PERIGEE_CUBIC_H

#include <math.h>

#ifndef PG_FUNCTION /* kernels have their own (cpu.h, cuda.h) */
#define PG_FUNCTION static inline
#endif

/* The weight of a sample at distance x, for the parameter a. */
PG_FUNCTION double pg_cubic(double x, double a) {
  x = fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

#endif
