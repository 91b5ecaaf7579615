/* The second step of column sums over rows, the chunks being fixed by the shapes. */
#ifndef PERIGEE_KERNELS_CUDA_CHUNKS_H
#define PERIGEE_KERNELS_CUDA_CHUNKS_H

#include "cuda.h"

/* Grid: (width / PG_WARP, groups). A block adds PG_CHUNK_PARTS sums of a column side by side, then these in order. */
enum { PG_CHUNK_PARTS = 8 };
static __global__ void __launch_bounds__(PG_CHUNK_PARTS *PG_WARP)
    add_chunks(real *first, real *second, const stat *partial, int64_t chunks, int64_t width, int64_t split) {
  PG_SHARED(stat, sums, [PG_CHUNK_PARTS][PG_WARP]);
  int64_t j = (int64_t)blockIdx.x * PG_WARP + threadIdx.x, group = blockIdx.y;
  stat sum = 0;
  if (j < width)
    for (int64_t c = threadIdx.y; c < chunks; c += PG_CHUNK_PARTS) sum += partial[(group * chunks + c) * width + j];
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || j >= width) return;
  sum = 0;
  for (int p = 0; p < PG_CHUNK_PARTS; p++) sum += sums[p][threadIdx.x];
  if (j < split && first) first[group * split + j] = store(sum);
  if (j >= split && second) second[group * (width - split) + j - split] = store(sum);
}

/* Adds up columns whose rows were summed chunk by chunk: partial is [groups, chunks, width]; a group's sums of the first
 * `split` columns go to first [groups, split], the others to second [groups, width - split]. Either may be NULL. */
static inline void pg_add_chunks(real *first, real *second, const stat *partial, int64_t groups, int64_t chunks,
                                 int64_t width, int64_t split, void *stream) {
  LAUNCH(add_chunks, dim3(pg_blocks(width, PG_WARP), (unsigned)groups), dim3(PG_WARP, PG_CHUNK_PARTS), 0, stream, first,
         second, partial, chunks, width, split);
}

#endif
