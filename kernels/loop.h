/* Elementwise loops over views of any strides, with numpy's broadcasting: dimensions are aligned at the end, and one of
 * size 1 (or one that is missing) repeats. Dimensions that lie in memory one after the other in every operand are
 * merged, so that most calls become one long row. cpu_loop.h and cuda_loop.h run them. */
#ifndef PERIGEE_KERNELS_LOOP_H
#define PERIGEE_KERNELS_LOOP_H

#include <string.h>

#include "kernel.h"

enum { PG_LOOP_OPERANDS = 4 };

typedef struct pg_loop {
  int operands, ndim; /* ndim >= 1 after merging */
  int64_t shape[PG_MAX_DIMS];
  int64_t stride[PG_LOOP_OPERANDS][PG_MAX_DIMS]; /* in elements; 0 where the operand repeats */
  char *data[PG_LOOP_OPERANDS];
  int64_t bytes[PG_LOOP_OPERANDS]; /* of an element */
  int64_t total;
} pg_loop;

static inline int64_t pg_loop_inner(const pg_loop *loop, int operand) { return loop->stride[operand][loop->ndim - 1]; }

/* Whether dimension d of the loop continues dimension d + 1 in every operand. */
static inline int pg_loop_mergeable(const pg_loop *loop, int d) {
  for (int k = 0; k < loop->operands; k++)
    if (loop->stride[k][d] != loop->stride[k][d + 1] * loop->shape[d + 1]) return 0;
  return 1;
}

static inline void pg_loop_remove(pg_loop *loop, int d) {
  loop->ndim--;
  for (int j = d; j < loop->ndim; j++) {
    loop->shape[j] = loop->shape[j + 1];
    for (int k = 0; k < loop->operands; k++) loop->stride[k][j] = loop->stride[k][j + 1];
  }
}

/* A loop over views[0]'s shape; the others must have it or broadcast to it. 0 if one does not. */
static inline int pg_loop_make(pg_loop *loop, int operands, const pg_view *const *views) {
  const pg_view *out = views[0];
  memset(loop, 0, sizeof *loop);
  loop->operands = operands;
  loop->ndim = out->ndim;
  loop->total = pg_numel(out);
  for (int d = 0; d < out->ndim; d++) loop->shape[d] = out->shape[d];
  for (int k = 0; k < operands; k++) {
    const pg_view *v = views[k];
    int shift = out->ndim - v->ndim;
    if (shift < 0) return 0;
    for (int d = 0; d < v->ndim; d++) {
      if (v->shape[d] != 1 && v->shape[d] != out->shape[shift + d]) return 0;
      loop->stride[k][shift + d] = v->shape[d] == 1 ? 0 : v->stride[d];
    }
    loop->data[k] = (char *)v->data;
    loop->bytes[k] = pg_dtype_bytes(v->dtype);
  }
  for (int d = loop->ndim - 1; d >= 0; d--)
    if (loop->shape[d] == 1) pg_loop_remove(loop, d);
  for (int d = loop->ndim - 2; d >= 0; d--) {
    if (!pg_loop_mergeable(loop, d)) continue;
    loop->shape[d] *= loop->shape[d + 1];
    for (int k = 0; k < operands; k++) loop->stride[k][d] = loop->stride[k][d + 1];
    pg_loop_remove(loop, d + 1);
  }
  if (loop->ndim == 0) { /* one element */
    loop->ndim = 1;
    loop->shape[0] = 1;
    for (int k = 0; k < operands; k++) loop->stride[k][0] = 1;
  }
  return 1;
}

/* In a loop that copies operand 1 to 0: the dimension that lies side by side in 1 when the last one, side by side in 0,
 * does not; the copy is then a transposition. -1 if there is none. */
static inline int pg_loop_transposed(const pg_loop *loop) {
  int last = loop->ndim - 1;
  if (loop->stride[0][last] != 1 || loop->stride[1][last] == 1 || loop->shape[last] < 8) return -1;
  for (int d = 0; d < last; d++)
    if (loop->stride[1][d] == 1 && loop->shape[d] >= 8) return d;
  return -1;
}

#endif
