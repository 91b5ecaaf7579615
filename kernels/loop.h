/* Elementwise loops over views of any strides, with numpy's broadcasting: dimensions are aligned at the end, and one of
 * size 1 (or one that is missing) repeats. Dimensions that lie in memory one after the other in every operand are
 * merged, so that most calls become one long row. A row function gets a pointer an operand and the row's length; the
 * innermost strides are the same for all rows of a loop. */
#ifndef PERIGEE_KERNELS_LOOP_H
#define PERIGEE_KERNELS_LOOP_H

#include <omp.h>

#include "kernel.h"

enum { PG_LOOP_OPERANDS = 4, PG_LOOP_PIECE = 8192, PG_LOOP_PARALLEL = 32768 };

typedef struct pg_loop {
  int operands, ndim; /* ndim >= 1 after merging */
  int64_t shape[PG_MAX_DIMS];
  int64_t stride[PG_LOOP_OPERANDS][PG_MAX_DIMS]; /* in elements; 0 where the operand repeats */
  char *data[PG_LOOP_OPERANDS];
  int64_t bytes[PG_LOOP_OPERANDS]; /* of an element */
  int64_t total;
} pg_loop;

static inline int64_t pg_element_bytes(int dtype) {
  static const uint8_t bytes[PG_DTYPES] = {4, 8, 2, 4, 8, 1};
  return bytes[dtype];
}

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
    loop->data[k] = v->data;
    loop->bytes[k] = pg_element_bytes(v->dtype);
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

typedef void (*pg_row_function)(const void *context, char *const *operand, int64_t length);

/* Calls `row` for every row; long rows come in pieces, and threads take ranges of rows and pieces. */
static inline void pg_loop_run(const pg_loop *loop, pg_row_function row, const void *context) {
  if (loop->total == 0) return;
  int last = loop->ndim - 1;
  int64_t length = loop->shape[last], pieces = (length + PG_LOOP_PIECE - 1) / PG_LOOP_PIECE;
  int64_t units = loop->total / length * pieces;
#pragma omp parallel if (loop->total > PG_LOOP_PARALLEL)
  {
    int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    int64_t first = units * thread / threads, end = units * (thread + 1) / threads;
    int64_t index[PG_MAX_DIMS] = {0}, rest = first / pieces, piece = first % pieces;
    char *start[PG_LOOP_OPERANDS], *operand[PG_LOOP_OPERANDS];
    for (int k = 0; k < loop->operands; k++) start[k] = loop->data[k];
    for (int d = last - 1; d >= 0; d--) {
      index[d] = rest % loop->shape[d];
      rest /= loop->shape[d];
      for (int k = 0; k < loop->operands; k++) start[k] += index[d] * loop->stride[k][d] * loop->bytes[k];
    }
    for (int64_t unit = first; unit < end; unit++) {
      int64_t from = piece * PG_LOOP_PIECE, left = length - from;
      for (int k = 0; k < loop->operands; k++) operand[k] = start[k] + from * loop->stride[k][last] * loop->bytes[k];
      row(context, operand, left < PG_LOOP_PIECE ? left : PG_LOOP_PIECE);
      if (++piece < pieces) continue;
      piece = 0;
      for (int d = last - 1; d >= 0; d--) { /* the next row */
        for (int k = 0; k < loop->operands; k++) start[k] += loop->stride[k][d] * loop->bytes[k];
        if (++index[d] < loop->shape[d]) break;
        for (int k = 0; k < loop->operands; k++) start[k] -= index[d] * loop->stride[k][d] * loop->bytes[k];
        index[d] = 0;
      }
    }
  }
}

#endif
