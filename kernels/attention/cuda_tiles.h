/* Products of small matrices, a warp at a time: by tensor cores in bfloat16 (operands rounded to it, sums in float32), by
 * multiply-adds in float32.
 *
 * Operands come from tiles in shared memory, results stay in registers, as strips. Every sum is added in an order that the
 * sizes alone fix. */
#ifndef PERIGEE_ATTENTION_CUDA_TILES_H
#define PERIGEE_ATTENTION_CUDA_TILES_H

#include "cuda.h"

/* A warp's part of a matrix, 16·R rows and 8·N columns, in the layout of mma's result (cuda_ptx.h): with g = lane / 4 and
 * t = lane % 4, c[r][n][2i + j] is element [16r + 8i + g][8n + 2t + j]. The four lanes that share rows are a quad. */
template <int R, int N>
struct strip {
  float c[R][N][4];
};

static __device__ __forceinline__ int lane_row() { return threadIdx.x % PG_WARP / 4; }
static __device__ __forceinline__ int lane_column() { return threadIdx.x % 4 * 2; }

/* f(element, r, i, column) for this lane's elements, in rows 16r + 8i + lane_row(). */
template <int R, int N, typename F>
static __device__ __forceinline__ void each(strip<R, N> &s, F f) {
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int k = 0; k < 4; k++) f(s.c[r][n][k], r, k / 2, 8 * n + lane_column() + k % 2);
}

/* The same for two strips at once. */
template <int R, int N, typename F>
static __device__ __forceinline__ void each(strip<R, N> &a, const strip<R, N> &b, F f) {
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int k = 0; k < 4; k++) f(a.c[r][n][k], b.c[r][n][k], r, k / 2, 8 * n + lane_column() + k % 2);
}

static __device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(PG_ALL_LANES, x, 1);
  return x + __shfl_xor_sync(PG_ALL_LANES, x, 2);
}
static __device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(PG_ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(PG_ALL_LANES, x, 2));
}

/* ---- tiles: rows in shared memory ---- */

/* Columns that a tile keeps of rows of `size` elements; those past `size` are zeros. */
static __host__ __device__ constexpr int padded(int size) { return (size + 15) / 16 * 16; }

/* Elements from one row of a tile to the next: an odd number of 16-byte pieces, so that the eight pieces that are read at
 * once, from rows below each other, lie in different banks. */
static __host__ __device__ constexpr int tile_row(int columns) { return (columns / PG_VECTOR | 1) * PG_VECTOR; }

static __host__ __device__ constexpr int tile_elements(int rows, int columns) { return rows * tile_row(columns); }

#if PG_REAL == 2

/* s += A·Bᵀ: A a tile of 16·R rows, B one of 8·N, `columns` (a multiple of 16) columns each. */
template <int R, int N>
static __device__ __forceinline__ void multiply_rows(strip<R, N> &s, const real *a, const real *b, int columns) {
  static_assert(N % 2 == 0, "ldmatrix brings two tiles of B");
  int lane = threadIdx.x % PG_WARP, row = tile_row(columns);
  a += lane % 16 * row + lane / 16 * 8;
  b += (lane % 8 + lane / 16 * 8) * row + lane / 8 % 2 * 8;
#pragma unroll 2 /* more would spill registers in the backward */
  for (int k = 0; k < columns; k += 16) {
    unsigned left[R][4], right[4];
#pragma unroll
    for (int r = 0; r < R; r++) load_matrices(left[r], a + 16 * r * row + k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      load_matrices(right, b + 8 * n * row + k);
#pragma unroll
      for (int r = 0; r < R; r++) {
        mma_bfloat16(s.c[r][n], left[r], right);
        mma_bfloat16(s.c[r][n + 1], left[r], right + 2);
      }
    }
  }
}

/* s += P·B: B a tile of 8·N rows whose first 8·M columns count. */
template <int R, int M, int N>
static __device__ __forceinline__ void multiply_columns(strip<R, M> &s, const strip<R, N> &p, const real *b) {
  static_assert(N % 2 == 0, "mma takes 16 columns of P");
  constexpr int row = tile_row(padded(8 * M));
  int lane = threadIdx.x % PG_WARP;
  b += lane % 16 * row + lane / 16 * 8;
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    unsigned left[R][4], right[4];
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const float *pair = p.c[r][n + k / 2] + k % 2 * 2;
        left[r][k] = pack_bfloat16(pair[0], pair[1]);
      }
#pragma unroll
    for (int m = 0; m < M; m += 2) {
      load_matrices_transposed(right, b + 8 * n * row + 8 * m);
#pragma unroll
      for (int r = 0; r < R; r++) {
        mma_bfloat16(s.c[r][m], left[r], right);
        if (m + 1 < M) mma_bfloat16(s.c[r][m + 1], left[r], right + 2);
      }
    }
  }
}

static __device__ __forceinline__ void store_pair(real *to, float first, float second) {
  *reinterpret_cast<unsigned *>(to) = pack_bfloat16(first, second);
}

#else

template <int R, int N>
static __device__ __forceinline__ void multiply_rows(strip<R, N> &s, const real *a, const real *b, int columns) {
  int row = tile_row(columns);
  a += lane_row() * row;
  b += lane_column() * row;
#pragma unroll 2
  for (int k = 0; k < columns; k += 4) {
    float4 left[R][2];
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int i = 0; i < 2; i++) left[r][i] = *reinterpret_cast<const float4 *>(a + (16 * r + 8 * i) * row + k);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        float4 right = *reinterpret_cast<const float4 *>(b + (8 * n + j) * row + k);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            float &sum = s.c[r][n][2 * i + j];
            sum += left[r][i].x * right.x;
            sum += left[r][i].y * right.y;
            sum += left[r][i].z * right.z;
            sum += left[r][i].w * right.w;
          }
      }
  }
}

template <int R, int M, int N>
static __device__ __forceinline__ void multiply_columns(strip<R, M> &s, const strip<R, N> &p, const real *b) {
  constexpr int row = tile_row(padded(8 * M));
  int quad = threadIdx.x % PG_WARP & ~3;
  b += lane_column();
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int k = 0; k < 8; k++) { /* column 8n + k of P lies with the quad's lane k / 2 */
      float left[R][2];
#pragma unroll
      for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < 2; i++) left[r][i] = __shfl_sync(PG_ALL_LANES, p.c[r][n][2 * i + k % 2], quad + k / 2);
#pragma unroll
      for (int m = 0; m < M; m++) {
        float2 right = *reinterpret_cast<const float2 *>(b + (8 * n + k) * row + 8 * m);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            s.c[r][m][2 * i] += left[r][i] * right.x;
            s.c[r][m][2 * i + 1] += left[r][i] * right.y;
          }
      }
    }
}

static __device__ __forceinline__ void store_pair(real *to, float first, float second) {
  *reinterpret_cast<float2 *>(to) = make_float2(first, second);
}

#endif

/* ---- between global memory and tiles ---- */

/* `rows` rows of `size` elements, `stride` apart, in global memory; `vectors`: they can be moved 16 bytes at a time. */
struct matrix {
  real *first;
  int64_t stride;
  int rows, size;
  bool vectors;
};

/* The block brings rows [first, first + rows) of x to a tile, zeros where x has none. They are there after a copy_wait()
 * and a barrier. */
static __device__ __forceinline__ void load_tile(real *tile, const matrix &x, int first, int rows, int columns) {
  int pieces = columns / PG_VECTOR, row = tile_row(columns);
  for (int c = threadIdx.x; c < rows * pieces; c += blockDim.x) {
    int i = c / pieces, k = c % pieces * PG_VECTOR;
    bool inside = first + i < x.rows && k < x.size;
    const real *from = inside ? x.first + (first + i) * x.stride + k : x.first;
    real *to = tile + i * row + k;
    if (x.vectors) {
      copy_async(to, from, inside ? 16 : 0);
    } else {
      for (int e = 0; e < PG_VECTOR; e++) to[e] = inside && k + e < x.size ? from[e] : store(0.0f);
    }
  }
}

/* A warp's strip becomes rows [first, first + 16·R) of `to`. `tile` has room for it and is nobody else's. */
template <int R, int M>
static __device__ __forceinline__ void store_strip(const matrix &to, int first, strip<R, M> &s, real *tile) {
  constexpr int row = tile_row(padded(8 * M)), pieces = 8 * M / PG_VECTOR;
  __syncwarp();
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int i = 0; i < 2; i++)
        store_pair(tile + (16 * r + 8 * i + lane_row()) * row + 8 * m + lane_column(), s.c[r][m][2 * i],
                   s.c[r][m][2 * i + 1]);
  __syncwarp();
  for (int c = threadIdx.x % PG_WARP; c < 16 * R * pieces; c += PG_WARP) {
    int i = c / pieces, k = c % pieces * PG_VECTOR;
    if (first + i >= to.rows || k >= to.size) continue;
    const real *from = tile + i * row + k;
    real *at = to.first + (first + i) * to.stride + k;
    if (to.vectors) {
      *reinterpret_cast<uint4 *>(at) = *reinterpret_cast<const uint4 *>(from);
    } else {
      for (int e = 0; e < PG_VECTOR && k + e < to.size; e++) at[e] = from[e];
    }
  }
}

#endif
