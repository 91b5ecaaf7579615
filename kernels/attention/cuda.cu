#include "cuda.h"

#include "attention/cuda_backward.h"
#include "attention/own.h"

/* ---- forward ---- */

/* Tiles of a head size: 16·R query rows a warp, K keys at a time, or LAST_K where no more are left. */
template <int D>
struct forward_tiles {
  static const int R = 2, K = (D <= 72 ? 64 : 32) / (PG_REAL == PG_BFLOAT16 ? 1 : 2);
  static const int LAST_K = PG_REAL == PG_BFLOAT16 ? 16 : 8;
};

/* The running softmax meets the next logits s: maxima m, sums l (of this lane's columns) and products o follow them, s
 * becomes exp2(s − m). */
template <int R, int N, int M>
static __device__ __forceinline__ void running_softmax(strip<R, N> &s, float m[R][2], float l[R][2], strip<R, M> &o) {
  float factor[R][2];
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int i = 0; i < 2; i++) factor[r][i] = m[r][i];
  raise_maxima(m, s);
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int i = 0; i < 2; i++) l[r][i] *= factor[r][i] = fast_exp2(factor[r][i] - m[r][i]);
  each(o, [&](float &x, int r, int i, int) { x *= factor[r][i]; });
  each(s, [&](float &x, int r, int i, int) { l[r][i] += x = fast_exp2(x - m[r][i]); });
}

/* A tile of 8·N keys, of which `left` count. */
template <int N, int R, int M>
static __device__ __forceinline__ void add_tile(strip<R, M> &o, float (*m)[2], float (*l)[2], const real *queries,
                                                const real *keys, const real *values, int left, float scale) {
  strip<R, N> s = {};
  multiply_rows(s, queries, keys, padded(8 * M));
  each(s, [&](float &x, int, int, int) { x *= scale * log2_e; });
  mask_columns(s, left, least);
  running_softmax(s, m, l, o);
  multiply_columns(o, s, values);
}

/* FlashAttention-2 (Dao 2023, algorithm 1). A block has some query rows of one head, a warp 16·R of them; it walks over
 * tiles of keys and values with the rows' running maximum m, sum l and output O = sum_j exp(s_j − m)·v_j, which are scaled
 * down whenever the maximum grows. Logits are kept times log2(e), for powers of two. The grid has the rows [from, to) of
 * every head. */
template <int D, int R>
static __global__ void __launch_bounds__(MOST_WARPS *PG_WARP, 2)
    forward(head_tensor qkv, head_tensor out, stat *lse, float scale, int from, int to) {
  constexpr int K = forward_tiles<D>::K, LAST_K = forward_tiles<D>::LAST_K, columns = padded(D);
  PG_SHARED_DYNAMIC(real, shared);
  int block_rows = blockDim.x / PG_WARP * 16 * R;
  place at = place_of(qkv.heads, to - from, block_rows);
  at.first += from;
  at.row = (at.image * qkv.heads + at.head) * qkv.tokens;
  real *queries = shared, *keys = queries + tile_elements(block_rows, columns);
  real *values = keys + tile_elements(2 * K, columns);
  real *my_queries = queries + tile_elements(warp_index() * 16 * R, columns);
  matrix all_keys = matrix_of(qkv, at.image, at.head, KEYS), all_values = matrix_of(qkv, at.image, at.head, VALUES);
  auto load = [&](int tile) {
    load_tile(keys + tile_elements(tile % 2 * K, columns), all_keys, tile * K, K, columns);
    load_tile(values + tile_elements(tile % 2 * K, columns), all_values, tile * K, K, columns);
    copy_commit();
  };

  load_tile(queries, matrix_of(qkv, at.image, at.head, QUERIES), at.first, block_rows, columns);
  load(0);
  strip<R, D / 8> o = {};
  float m[R][2], l[R][2] = {}; /* l: of this lane's columns */
  for (int r = 0; r < R; r++) m[r][0] = m[r][1] = least;
  for (int tile = 0; tile * K < qkv.tokens; tile++) {
    copy_wait<0>();
    __syncthreads();
    if ((tile + 1) * K < qkv.tokens) load(tile + 1);
    int left = qkv.tokens - tile * K, slot = tile_elements(tile % 2 * K, columns);
    if (left > LAST_K) add_tile<K / 8>(o, m, l, my_queries, keys + slot, values + slot, left, scale);
    else add_tile<LAST_K / 8>(o, m, l, my_queries, keys + slot, values + slot, left, scale);
  }

  int first = at.first + warp_index() * 16 * R;
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float sum = quad_sum(l[r][i]);
      int row = first + 16 * r + 8 * i + lane_row();
      if (lse && row < qkv.tokens && lane_column() == 0) lse[at.row + row] = ln_2 * (m[r][i] + log2f(sum));
      l[r][i] = 1.0f / sum;
    }
  each(o, [&](float &x, int r, int i, int) { x *= l[r][i]; });
  store_strip(matrix_of(out, at.image, at.head, 0), first, o, my_queries);
}

pg_status PG_CUDA(attention_own)(const pg_call *call) {
  const attention_views v = attention_of(call);
  pg_status status = expect_attention(call);
  if (status) return status;
  packed p = packed_sizes(v.qkv);
  status = expect_head_size("attention", v.qkv);
  if (status) return status;
  for_head_size(p.size, [&](auto size) {
    constexpr int D = size.value, R = forward_tiles<D>::R, columns = padded(D);
    int64_t tiles = tile_elements(4 * forward_tiles<D>::K, columns);
    auto launch = [&](auto kernel, int rows, int from, int to) { /* `rows` of a warp */
      int64_t queries = tile_elements(rows, columns);
      int warps = warps_for(to - from, rows, tiles, queries);
      LAUNCH(kernel, row_blocks(p.images * p.heads, to - from, warps * rows), warps * PG_WARP,
             (size_t)(tiles + warps * queries) * sizeof(real), call->stream, head_tensor_of(v.qkv), head_tensor_of(v.out),
             pg_data<stat>(v.lse), (float)attention_floats_of(call).scale, from, to);
    };
    /* A few rows past whole blocks, such as the class token's past an encoder's 256, are blocks of one small warp. */
    int tokens = (int)p.tokens, rest = tokens % (MOST_WARPS * 16 * R);
    if (tokens == rest || rest > 16) rest = 0;
    launch(forward<D, R>, 16 * R, 0, tokens - rest);
    launch(forward<D, 1>, 16, tokens - rest, tokens);
  });
  return pg_launched("attention");
}

/* ---- backward ---- */

int64_t PG_CUDA(attention_own_backward_scratch)(const pg_call *call) {
  const attention_backward_views v = attention_backward_of(call);
  return is_packed(v.qkv) ? backward_bytes(packed_sizes(v.qkv)) : 0;
}

pg_status PG_CUDA(attention_own_backward)(const pg_call *call) {
  const attention_backward_views v = attention_backward_of(call);
  pg_status status = expect_attention_backward(call);
  if (status) return status;
  packed p = packed_sizes(v.qkv);
  status = expect_head_size("attention_backward", v.qkv);
  if (status) return status;
  backward_case x = {};
  x.qkv = head_tensor_of(v.qkv), x.dqkv = head_tensor_of(v.dqkv);
  x.dout = head_tensor_of(v.dout), x.out = head_tensor_of(v.out);
  x.lse = pg_data<stat>(v.lse), x.delta = static_cast<stat *>(call->scratch);
  x.scale = (float)attention_backward_floats_of(call).scale;
  launch_backward<false>(x, p.images, call->stream);
  return pg_launched("attention_backward");
}
