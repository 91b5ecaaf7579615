/* Loops (loop.h) on the CPU, row by row. A row function gets a pointer an operand and the row's length; the innermost
 * strides are the same for all rows of a loop. */
#ifndef PERIGEE_KERNELS_CPU_LOOP_H
#define PERIGEE_KERNELS_CPU_LOOP_H

#include <omp.h>

#include "loop.h"

enum { PG_LOOP_PIECE = 8192, PG_LOOP_PARALLEL = 32768 };

typedef void (*pg_row_function)(const void *context, char *const *operand, int64_t length);

/* Calls `row` for every row; long rows come in pieces, and threads take ranges of rows and pieces. */
static inline void pg_loop_run(const pg_loop *loop, pg_row_function row, const void *context) {
  if (loop->total == 0) return;
  int last = loop->ndim - 1;
  int64_t length = loop->shape[last], pieces = pg_pieces(length, PG_LOOP_PIECE);
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
