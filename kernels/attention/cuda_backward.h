/* The backward of attention, of its alignment with a teacher, and of both at once.
 *
 *   P = exp(S − lse), dP = dO·Vᵀ, T = softmax of the teacher's logits, c = coefficient
 *   dS = P∘(dP − delta + c) − c·T        (without a teacher c = 0; without dO dP = delta = 0)
 *   dQ = scale·dS·K, dK = scale·dSᵀ·Q, dV = Pᵀ·dO
 *
 * Two kernels, each with an output that stays in registers: backward_queries walks over keys for dQ, backward_keys over
 * queries for dK and dV. S and dP are computed in both: 7 products of [N,d] by [N,d] instead of 5. In exchange no dS
 * goes through shared memory and no float32 dQ through global memory (in one pass: 8 bytes a tile's query element,
 * added up atomically or in a queue), the bits do not depend on who comes first, and P and dS go from one product to
 * the next in registers. */
#ifndef PERIGEE_ATTENTION_CUDA_BACKWARD_H
#define PERIGEE_ATTENTION_CUDA_BACKWARD_H

#include "attention/cuda_heads.h"

/* Which heads are compared: in pair k students[k] and teachers[k], head k where a list is NULL. Without a teacher pairs
 * is 0. */
struct head_pairs {
  const int32_t *students, *teachers;
  int pairs, teacher_heads;
};

/* A call's tensors. Rows of lse, delta and teacher_lse: [B,H,N]. */
struct backward_case {
  head_tensor qkv, dqkv, dout, out; /* dout, out absent: only the alignment's gradient */
  const stat *lse;
  stat *delta; /* written by backward_queries */
  float scale;
  head_tensor teacher;
  head_pairs pairs;
  const stat *teacher_lse;
  const stat *coefficient; /* divided by `terms`: c */
  float teacher_scale, terms;
};

static __device__ __forceinline__ int head_in(const int32_t *map, int pair) { return map ? map[pair] : pair; }

/* The first pair of a student's head, or -1. */
static __device__ __forceinline__ int pair_of(const head_pairs &p, int head) {
  for (int k = 0; k < p.pairs; k++)
    if (head_in(p.students, k) == head) return k;
  return -1;
}

/* The teacher's head that goes with a student's, or -1; maps in device memory may name heads that are not there. */
static __device__ __forceinline__ int teacher_of(const head_pairs &p, int head) {
  int pair = pair_of(p, head), teacher = pair < 0 ? -1 : head_in(p.teachers, pair);
  return teacher < p.teacher_heads ? teacher : -1;
}

/* c. The softmax of a single logit is 1 for both: their difference is not left to rounding. */
static __device__ __forceinline__ float coefficient_of(const backward_case &x) {
  return x.qkv.tokens > 1 ? *x.coefficient / x.terms : 0.0f;
}

/* sum_k a_k·b_k over two rows of `size` elements, a quad at a time, N elements a lane. */
template <int N>
static __device__ __forceinline__ float quad_dot(const real *a, const real *b, int size) {
  float sum = 0.0f, x[N], y[N];
  for (int k = threadIdx.x % 4 * N; k < size; k += 4 * N) {
    load_some<N>(x, a + k);
    load_some<N>(y, b + k);
    for (int e = 0; e < N; e++) sum += x[e] * y[e];
  }
  return quad_sum(sum);
}

/* ---- dQ ---- */

template <int D>
struct query_tiles {
  static const int R = D <= 72 ? 2 : 1, K = PG_REAL == PG_BFLOAT16 ? 32 : 16;
};

/* delta of a row, a quad at a time; rows past the end repeat the last one. */
static __device__ __forceinline__ float delta_of(const backward_case &x, const place &at, int row, int tokens) {
  matrix dout = matrix_of(x.dout, at.image, at.head, 0), out = matrix_of(x.out, at.image, at.head, 0);
  int64_t start = min(row, tokens - 1) * dout.stride;
  return dout.vectors && out.vectors ? quad_dot<PG_VECTOR>(dout.first + start, out.first + start, dout.size)
                                     : quad_dot<1>(dout.first + start, out.first + start, dout.size);
}

/* Loaded with a warp's rows from `first` on: lse and teacher_lse (times log2(e)); delta, which is kept too. */
template <int R>
static __device__ __forceinline__ void row_statistics(float lse[R][2], float teacher_lse[R][2], float delta[R][2],
                                                      const backward_case &x, const place &at, int first, int tokens,
                                                      bool attends, bool aligned) {
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int row = first + 16 * r + 8 * i + lane_row();
      if (attends) delta[r][i] = delta_of(x, at, row, tokens);
      if (row >= tokens) continue;
      lse[r][i] = log2_e * x.lse[at.row + row];
      if (aligned) teacher_lse[r][i] = log2_e * x.teacher_lse[at.row + row];
      if (attends && lane_column() == 0) x.delta[at.row + row] = delta[r][i];
    }
}

/* ds -= c·T, T being made of the teacher's queries (16·R rows) and a tile of its keys, `left` of them. */
template <int R, int N>
static __device__ __forceinline__ void subtract_teacher(strip<R, N> &ds, const real *queries, const real *keys,
                                                        int columns, int left, float scale, const float lse[R][2],
                                                        float c) {
  strip<R, N> t = {};
  multiply_rows(t, queries, keys, columns);
  each(t, [&](float &s, int r, int i, int) { s = fast_exp2(s * (scale * log2_e) - lse[r][i]); });
  mask_columns(t, left, 0.0f);
  each(ds, t, [&](float &ds_ij, float t_ij, int, int, int) { ds_ij -= c * t_ij; });
}

/* A block has some query rows, a warp 16·R of them; keys and values come K at a time. */
template <int D, bool ALIGNED>
static __global__ void __launch_bounds__(MOST_WARPS *PG_WARP, 2) backward_queries(backward_case x) {
  constexpr int R = query_tiles<D>::R, K = query_tiles<D>::K, columns = padded(D);
  PG_SHARED_DYNAMIC(real, shared);
  int block_rows = blockDim.x / PG_WARP * 16 * R, tokens = x.qkv.tokens, my_row = warp_index() * 16 * R;
  place at = place_of(x.qkv.heads, tokens, block_rows);
  int teacher_columns = ALIGNED ? padded(x.teacher.size) : 0;
  int teacher_head = ALIGNED ? teacher_of(x.pairs, at.head) : -1;
  bool attends = !ALIGNED || x.dout.data, aligned = ALIGNED && teacher_head >= 0;

  real *queries = shared, *douts = queries + tile_elements(block_rows, columns);
  real *keys = douts + tile_elements(block_rows, columns), *values = keys + tile_elements(2 * K, columns);
  real *teacher_queries = values + tile_elements(2 * K, columns);
  real *teacher_keys = teacher_queries + tile_elements(block_rows, teacher_columns);
  auto load = [&](int tile) {
    int slot = tile % 2 * K;
    load_tile(keys + tile_elements(slot, columns), matrix_of(x.qkv, at.image, at.head, KEYS), tile * K, K, columns);
    if (attends)
      load_tile(values + tile_elements(slot, columns), matrix_of(x.qkv, at.image, at.head, VALUES), tile * K, K, columns);
    if (aligned)
      load_tile(teacher_keys + tile_elements(slot, teacher_columns), matrix_of(x.teacher, at.image, teacher_head, KEYS),
                tile * K, K, teacher_columns);
    copy_commit();
  };

  strip<R, D / 8> dq = {};
  if (attends || aligned) {
    load_tile(queries, matrix_of(x.qkv, at.image, at.head, QUERIES), at.first, block_rows, columns);
    if (attends) load_tile(douts, matrix_of(x.dout, at.image, at.head, 0), at.first, block_rows, columns);
    if (aligned)
      load_tile(teacher_queries, matrix_of(x.teacher, at.image, teacher_head, QUERIES), at.first, block_rows,
                teacher_columns);
    load(0);
  }
  float lse[R][2] = {}, teacher_lse[R][2] = {}, delta[R][2] = {};
  float c = aligned ? coefficient_of(x) : 0.0f;
  row_statistics<R>(lse, teacher_lse, delta, x, at, at.first + my_row, tokens, attends, aligned);

  for (int tile = 0; (attends || aligned) && tile * K < tokens; tile++) {
    copy_wait<0>();
    __syncthreads();
    if ((tile + 1) * K < tokens) load(tile + 1);
    int slot = tile % 2 * K, left = tokens - tile * K;
    const real *key_tile = keys + tile_elements(slot, columns);
    strip<R, K / 8> p = {}, ds = {};
    multiply_rows(p, queries + tile_elements(my_row, columns), key_tile, columns);
    each(p, [&](float &s, int r, int i, int) { s = fast_exp2(s * (x.scale * log2_e) - lse[r][i]); });
    mask_columns(p, left, 0.0f);
    if (attends)
      multiply_rows(ds, douts + tile_elements(my_row, columns), values + tile_elements(slot, columns), columns);
    each(ds, p, [&](float &dp, float p_ij, int r, int i, int) { dp = p_ij * (dp - delta[r][i] + c); });
    if (aligned)
      subtract_teacher(ds, teacher_queries + tile_elements(my_row, teacher_columns),
                       teacher_keys + tile_elements(slot, teacher_columns), teacher_columns, left, x.teacher_scale,
                       teacher_lse, c);
    multiply_columns(dq, ds, key_tile);
  }
  each(dq, [&](float &s, int, int, int) { s *= x.scale; });
  store_strip(matrix_of(x.dqkv, at.image, at.head, QUERIES), at.first + my_row, dq,
              queries + tile_elements(my_row, columns));
}

/* ---- dK and dV ---- */

template <int D>
struct key_tiles {
  static const int R = D <= (PG_REAL == PG_BFLOAT16 ? 72 : 64) ? 2 : 1, Q = PG_REAL == PG_FLOAT32 ? 16 : 32;
};

/* Loaded with a tile of queries: lse and teacher_lse (times log2(e)), delta. */
enum { TILE_LSE, TILE_TEACHER_LSE, TILE_DELTA, TILE_STATISTICS };

/* P and T of queries past the end are exp(-infinity). */
template <int Q>
static __device__ __forceinline__ void load_statistics(float to[TILE_STATISTICS][Q], const backward_case &x,
                                                       const place &at, int first, bool attends, bool aligned) {
  for (int i = threadIdx.x; i < Q; i += blockDim.x) {
    int row = first + i;
    bool inside = row < x.qkv.tokens;
    to[TILE_LSE][i] = inside ? log2_e * x.lse[at.row + row] : INFINITY;
    to[TILE_TEACHER_LSE][i] = inside && aligned ? log2_e * x.teacher_lse[at.row + row] : INFINITY;
    to[TILE_DELTA][i] = inside && attends ? x.delta[at.row + row] : 0.0f;
  }
}

/* dSᵀ -= c·Tᵀ, Tᵀ being made of the teacher's keys (16·R rows) and a tile of its queries with their lse. */
template <int R, int N>
static __device__ __forceinline__ void subtract_teacher(strip<R, N> &ds, const real *keys, const real *queries,
                                                        int columns, float scale, const float *lse, float c) {
  strip<R, N> t = {};
  multiply_rows(t, keys, queries, columns);
  each(ds, t, [&](float &ds_ji, float s, int, int, int column) {
    ds_ji -= c * fast_exp2(s * (scale * log2_e) - lse[column]);
  });
}

/* A block has some keys and values, a warp 16·R of them; queries come Q at a time. Everything is transposed: rows of Pᵀ
 * and dSᵀ are keys. */
template <int D, bool ALIGNED>
static __global__ void __launch_bounds__(MOST_WARPS *PG_WARP, 2) backward_keys(backward_case x) {
  constexpr int R = key_tiles<D>::R, Q = key_tiles<D>::Q, columns = padded(D);
  PG_SHARED_DYNAMIC(real, shared);
  PG_SHARED(float, statistics, [2][TILE_STATISTICS][Q]);
  int block_rows = blockDim.x / PG_WARP * 16 * R, tokens = x.qkv.tokens, my_row = warp_index() * 16 * R;
  place at = place_of(x.qkv.heads, tokens, block_rows);
  int teacher_columns = ALIGNED ? padded(x.teacher.size) : 0;
  int teacher_head = ALIGNED ? teacher_of(x.pairs, at.head) : -1;
  bool attends = !ALIGNED || x.dout.data, aligned = ALIGNED && teacher_head >= 0;

  real *keys = shared, *values = keys + tile_elements(block_rows, columns);
  real *queries = values + tile_elements(block_rows, columns), *douts = queries + tile_elements(2 * Q, columns);
  real *teacher_keys = douts + tile_elements(2 * Q, columns);
  real *teacher_queries = teacher_keys + tile_elements(block_rows, teacher_columns);
  auto load = [&](int tile) {
    int slot = tile % 2 * Q;
    load_tile(queries + tile_elements(slot, columns), matrix_of(x.qkv, at.image, at.head, QUERIES), tile * Q, Q, columns);
    if (attends)
      load_tile(douts + tile_elements(slot, columns), matrix_of(x.dout, at.image, at.head, 0), tile * Q, Q, columns);
    if (aligned)
      load_tile(teacher_queries + tile_elements(slot, teacher_columns),
                matrix_of(x.teacher, at.image, teacher_head, QUERIES), tile * Q, Q, teacher_columns);
    copy_commit();
    load_statistics<Q>(statistics[tile % 2], x, at, tile * Q, attends, aligned);
  };

  strip<R, D / 8> dk = {}, dv = {};
  if (attends || aligned) {
    load_tile(keys, matrix_of(x.qkv, at.image, at.head, KEYS), at.first, block_rows, columns);
    if (attends) load_tile(values, matrix_of(x.qkv, at.image, at.head, VALUES), at.first, block_rows, columns);
    if (aligned)
      load_tile(teacher_keys, matrix_of(x.teacher, at.image, teacher_head, KEYS), at.first, block_rows, teacher_columns);
    load(0);
  }
  float c = aligned ? coefficient_of(x) : 0.0f;
  for (int tile = 0; (attends || aligned) && tile * Q < tokens; tile++) {
    copy_wait<0>();
    __syncthreads();
    if ((tile + 1) * Q < tokens) load(tile + 1);
    int slot = tile % 2 * Q;
    const float *lse = statistics[tile % 2][TILE_LSE], *delta = statistics[tile % 2][TILE_DELTA];
    const real *query_tile = queries + tile_elements(slot, columns), *dout_tile = douts + tile_elements(slot, columns);
    strip<R, Q / 8> p = {}, ds = {};
    multiply_rows(p, keys + tile_elements(my_row, columns), query_tile, columns);
    each(p, [&](float &s, int, int, int column) { s = fast_exp2(s * (x.scale * log2_e) - lse[column]); });
    if (attends) {
      multiply_columns(dv, p, dout_tile);
      multiply_rows(ds, values + tile_elements(my_row, columns), dout_tile, columns);
    }
    each(ds, p, [&](float &dp, float p_ji, int, int, int column) { dp = p_ji * (dp - delta[column] + c); });
    if (aligned)
      subtract_teacher(ds, teacher_keys + tile_elements(my_row, teacher_columns),
                       teacher_queries + tile_elements(slot, teacher_columns), teacher_columns, x.teacher_scale,
                       statistics[tile % 2][TILE_TEACHER_LSE], c);
    multiply_columns(dk, ds, query_tile);
  }
  each(dk, [&](float &s, int, int, int) { s *= x.scale; });
  store_strip(matrix_of(x.dqkv, at.image, at.head, KEYS), at.first + my_row, dk, keys + tile_elements(my_row, columns));
  store_strip(matrix_of(x.dqkv, at.image, at.head, VALUES), at.first + my_row, dv, keys + tile_elements(my_row, columns));
}

/* ---- launches ---- */

/* delta's bytes. */
static inline int64_t backward_bytes(packed p) { return p.images * p.heads * p.tokens * (int64_t)sizeof(stat); }

template <bool ALIGNED>
static inline void launch_backward(const backward_case &x, int64_t images, void *stream) {
  int64_t tokens = x.qkv.tokens, heads = images * x.qkv.heads;
  int teacher_columns = ALIGNED ? padded(x.teacher.size) : 0;
  for_head_size(x.qkv.size, [&](auto size) {
    constexpr int D = size.value, columns = padded(D);
    auto launch = [&](auto kernel, int rows, int tile) { /* 16·R rows a warp, tiles twice, two operands and the teacher's */
      int64_t tiles = 2 * (2 * tile_elements(tile, columns) + tile_elements(tile, teacher_columns));
      int64_t mine = 2 * tile_elements(rows, columns) + tile_elements(rows, teacher_columns);
      int warps = warps_for(tokens, rows, tiles, mine);
      LAUNCH(kernel, row_blocks(heads, tokens, warps * rows), warps * PG_WARP,
             (size_t)(tiles + warps * mine) * sizeof(real), stream, x);
    };
    launch(backward_queries<D, ALIGNED>, 16 * query_tiles<D>::R, query_tiles<D>::K);
    launch(backward_keys<D, ALIGNED>, 16 * key_tiles<D>::R, key_tiles<D>::Q);
  });
}

#endif
