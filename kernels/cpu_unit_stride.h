/* Rows of any stride for kernels whose inner loops want unit stride. */
#ifndef PERIGEE_KERNELS_CPU_UNIT_STRIDE_H
#define PERIGEE_KERNELS_CPU_UNIT_STRIDE_H

#include "kernel.h"

enum { PG_UNIT_STRIDE_MOST = 512 };

#define PG_UNIT_STRIDE_LOOP(type)                                                                                           \
  {                                                                                                                    \
    type *to = buffer;                                                                                                 \
    const type *from = (const type *)row + start * stride;                                                             \
    for (int64_t i = 0; i < n; i++) to[i] = from[i * stride];                                                          \
  }

/* `n` elements from place `start` of a row with this stride: in place if they lie side by side, else copied to `buffer`
 * (room for PG_UNIT_STRIDE_MOST). A repeated element is copied once, at start = 0. */
static inline const void *pg_unit_stride(void *buffer, const char *row, int64_t bytes, int64_t stride, int64_t start,
                                    int64_t n) {
  if (stride == 1) return row + start * bytes;
  if (stride == 0 && start > 0) return buffer;
  if (bytes == 1) PG_UNIT_STRIDE_LOOP(uint8_t)
  else if (bytes == 2) PG_UNIT_STRIDE_LOOP(uint16_t)
  else if (bytes == 4) PG_UNIT_STRIDE_LOOP(uint32_t)
  else PG_UNIT_STRIDE_LOOP(uint64_t)
  return buffer;
}

#endif
