/* Shared by the CUDA kernels of attention and its alignment: tensors of heads, the block's place, the size of launches.
 * */
#ifndef PERIGEE_ATTENTION_CUDA_HEADS_H
#define PERIGEE_ATTENTION_CUDA_HEADS_H

#include <type_traits>

#include "attention/check.h"
#include "attention/cuda_tiles.h"

static const float log2_e = 1.44269504088896341f, ln_2 = 0.693147180559945309f;

/* Stands for minus infinity where zero times it has to be zero. */
static const float least = -1e30f;

/* ---- tensors ---- */

/* [B, tokens, parts, heads, size]: packed queries, keys and values (3 parts), or outputs (1). data NULL: absent. */
struct head_tensor {
  real *data;
  int tokens, skip; /* the first `skip` tokens are passed over */
  int parts, heads, size;
  bool vectors;
};

enum { QUERIES, KEYS, VALUES }; /* parts */

static inline head_tensor head_tensor_of(const pg_view *v, int64_t skip = 0) {
  int parts = v->ndim == 5 ? (int)v->shape[2] : 1;
  int64_t heads = v->shape[v->ndim - 2], size = v->shape[v->ndim - 1];
  return {static_cast<real *>(v->data), (int)v->shape[1], (int)skip, parts, (int)heads, (int)size,
          pg_vectorisable(v->data, size, size)};
}

/* One part of one head. */
static __device__ __forceinline__ matrix matrix_of(const head_tensor &x, int64_t image, int head, int part) {
  int64_t stride = (int64_t)x.parts * x.heads * x.size;
  real *first = x.data + (image * x.tokens + x.skip) * stride + (part * x.heads + head) * x.size;
  return {first, stride, x.tokens - x.skip, x.size, x.vectors};
}

/* ---- places ---- */

/* Grid: blocks of rows of (image, head), neighbours of one head next to each other. */
struct place {
  int64_t image;
  int head, first; /* the block's first row */
  int64_t row;     /* of [B, heads, rows]: where the head's rows start */
};

static __device__ __forceinline__ place place_of(int heads, int rows, int block_rows) {
  unsigned blocks = (unsigned)(rows + block_rows - 1) / block_rows, piece = blockIdx.x / blocks;
  return {piece / heads, (int)(piece % heads), (int)(blockIdx.x % blocks) * block_rows, (int64_t)piece * rows};
}

static __device__ __forceinline__ int warp_index() { return threadIdx.x / PG_WARP; }

/* ---- rows of strips ---- */

/* Columns from `left` on become `value`. */
template <int R, int N>
static __device__ __forceinline__ void mask_columns(strip<R, N> &s, int left, float value) {
  if (left >= 8 * N) return;
  each(s, [&](float &x, int, int, int column) { x = column < left ? x : value; });
}

/* m = max(m, the row's elements), the same in all lanes of a quad. */
template <int R, int N>
static __device__ __forceinline__ void raise_maxima(float m[R][2], strip<R, N> &s) {
  each(s, [&](float &x, int r, int i, int) { m[r][i] = fmaxf(m[r][i], x); });
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int i = 0; i < 2; i++) m[r][i] = quad_max(m[r][i]);
}

/* ---- launches ---- */

enum { MOST_WARPS = 4 };

/* Warps a block, each with `rows` rows: no more than there are rows for, and than fit into shared memory. */
static inline int warps_for(int64_t tokens, int rows, int64_t elements_a_block, int64_t elements_a_warp) {
  int warps = MOST_WARPS;
  auto fits = [&](int n) {
    return (elements_a_block + n * elements_a_warp) * (int64_t)sizeof(real) <= PG_MOST_SHARED_BYTES;
  };
  while (warps > 1 && (!fits(warps) || tokens <= warps / 2 * rows)) warps /= 2;
  return warps;
}

static inline unsigned row_blocks(int64_t heads, int64_t tokens, int block_rows) {
  return (unsigned)(heads * pg_pieces(tokens, block_rows));
}

/* Head sizes that kernels are compiled for; others take the next one. */
enum { MOST_HEAD_SIZE = 128 };

static pg_status expect_head_size(const char *name, const pg_view *qkv) {
  PG_EXPECT(qkv->shape[4] <= MOST_HEAD_SIZE, "%s: qkv is %s; on CUDA a head's size is at most %d", name, pg_shape_text(qkv),
            MOST_HEAD_SIZE);
  return PG_OK;
}

template <typename F>
static inline void for_head_size(int64_t size, F f) {
  if (size <= 32) f(std::integral_constant<int, 32>());
  else if (size <= 64) f(std::integral_constant<int, 64>());
  else if (size <= 72) f(std::integral_constant<int, 72>());
  else f(std::integral_constant<int, 128>());
}

#endif
