/* to = from, two views of one shape and dtype, any strides. */
#ifndef PERIGEE_KERNELS_CUDA_COPY_H
#define PERIGEE_KERNELS_CUDA_COPY_H

#include "cuda_loop.h"

namespace {

/* Operands: to, from; T is an element's bits. */
template <typename T>
struct pg_element_copy {
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T x[N];
    read<N>(x, g, 1, at);
    write<N>(g, 0, at, x);
  }
};

}  // namespace

/* ---- transpositions ---- */

enum { PG_TILE = 32, PG_TILE_ROWS = 8 };

/* to[i·to_stride + j] = from[i + j·from_stride], i < rows, j < columns, for every element of `outer`; through shared
 * memory, so that memory is read and written line by line. */
struct pg_transposition {
  pg_grid<2> outer;
  unsigned rows, columns;
  int to_stride, from_stride;
};

/* Grid: tiles along j, tiles along i, outer elements taking turns. */
template <typename T>
static __global__ void __launch_bounds__(PG_TILE *PG_TILE_ROWS) pg_transpose_kernel(pg_transposition t) {
  PG_SHARED(T, tile, [PG_TILE][PG_TILE + 1]);
  unsigned first_i = blockIdx.y * PG_TILE, first_j = blockIdx.x * PG_TILE;
  for (unsigned o = blockIdx.z; o < t.outer.total; o += gridDim.z) {
    int at[2];
    place(at, t.outer, o);
    T *to = reinterpret_cast<T *>(t.outer.data[0]) + at[0];
    const T *from = reinterpret_cast<const T *>(t.outer.data[1]) + at[1];
    unsigned i = first_i + threadIdx.x;
    for (unsigned j = first_j + threadIdx.y; j < first_j + PG_TILE; j += PG_TILE_ROWS)
      if (i < t.rows && j < t.columns) tile[j - first_j][threadIdx.x] = from[(int)i + (int)j * t.from_stride];
    __syncthreads();
    unsigned j = first_j + threadIdx.x;
    for (i = first_i + threadIdx.y; i < first_i + PG_TILE; i += PG_TILE_ROWS)
      if (i < t.rows && j < t.columns) to[(int)i * t.to_stride + (int)j] = tile[threadIdx.x][i - first_i];
    __syncthreads();
  }
}

/* The dimension that a copy is a transposition of (loop.h), or -1: an element that is repeated is no transposition. */
static inline int pg_transposed_dimension(const pg_loop &loop) {
  return pg_loop_inner(&loop, 1) == 0 ? -1 : pg_loop_transposed(&loop);
}

template <typename T>
static void pg_transpose(const pg_loop &loop, int across, void *stream) {
  int last = loop.ndim - 1;
  pg_transposition t = {};
  t.rows = (unsigned)loop.shape[across], t.columns = (unsigned)loop.shape[last];
  t.to_stride = (int)loop.stride[0][across], t.from_stride = (int)loop.stride[1][last];
  pg_loop outer = loop;
  pg_loop_remove(&outer, last);
  pg_loop_remove(&outer, across);
  outer.total = loop.total / (loop.shape[across] * loop.shape[last]);
  if (outer.ndim == 0) outer.ndim = 1, outer.shape[0] = 1;
  t.outer = pg_grid_of<2>(outer);
  unsigned turns = outer.total < 65535 ? (unsigned)outer.total : 65535;
  dim3 grid(pg_blocks(t.columns, PG_TILE), pg_blocks(t.rows, PG_TILE), turns);
  LAUNCH(pg_transpose_kernel<T>, grid, dim3(PG_TILE, PG_TILE_ROWS), 0, stream, t);
}

/* ---- copies ---- */

template <typename T>
static void pg_copy_elements(pg_loop loop, void *stream) {
  if (loop.total == 0) return;
  int across = pg_transposed_dimension(loop);
  if (across < 0 || loop.shape[across] > 65535 * (int64_t)PG_TILE) {
    pg_each<2, 16 / sizeof(T)>(loop, pg_element_copy<T>{}, stream);
  } else if (pg_loop_fits(loop)) {
    pg_transpose<T>(loop, across, stream);
  } else {
    pg_loop rest = pg_loop_cut(loop);
    pg_copy_elements<T>(loop, stream);
    pg_copy_elements<T>(rest, stream);
  }
}

static inline void pg_copy_loop(const pg_loop &loop, void *stream) {
  switch (loop.bytes[0]) {
  case 1: pg_copy_elements<uint8_t>(loop, stream); break;
  case 2: pg_copy_elements<uint16_t>(loop, stream); break;
  case 4: pg_copy_elements<uint32_t>(loop, stream); break;
  default: pg_copy_elements<uint64_t>(loop, stream);
  }
}

static inline void pg_copy_views(const pg_view *to, const pg_view *from, void *stream) {
  const pg_view *const views[2] = {to, from};
  pg_loop loop;
  if (pg_loop_make(&loop, 2, views)) pg_copy_loop(loop, stream);
}

#endif
