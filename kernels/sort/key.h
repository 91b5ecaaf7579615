/* What elements are compared by: whole numbers in the elements' order. */
#ifndef PERIGEE_SORT_KEY_H
#define PERIGEE_SORT_KEY_H

#include <string.h>

#include "dtypes.h"

/* IEEE numbers of one sign are in the order of their bits, negative ones in the opposite order. */
PG_FUNCTION int64_t key_of_real(stat x) {
#if PG_REAL == 1
  int64_t bits, magnitude = INT64_MAX;
#else
  int32_t bits, magnitude = INT32_MAX;
#endif
  memcpy(&bits, &x, sizeof bits);
  if (x != x) return INT64_MAX;
  if (x == 0) return 0;
  return bits < 0 ? bits ^ magnitude : bits;
}

PG_FUNCTION int64_t key_of(const void *data, int dtype, int descending, int64_t at) {
  int64_t key;
  if (dtype == PG_REAL) key = key_of_real(load(((const real *)data)[at]));
  else if (dtype == PG_INT32) key = ((const int32_t *)data)[at];
  else if (dtype == PG_INT64) key = ((const int64_t *)data)[at];
  else key = ((const uint8_t *)data)[at];
  return descending ? ~key : key;
}

#endif
