#include "cuda.h"

#include "attention/cuda_backward.h"
#include "attention_alignment/attention_alignment.h"
#include "attention_alignment/check.h"

/* ---- the loss, and what both softmaxes are divided by ---- */

/* 16·R query rows a warp, K keys at a time. */
struct loss_tiles {
  static const int R = 2, K = PG_REAL == PG_BFLOAT16 ? 64 : 32;
};

struct loss_case {
  head_tensor student, teacher;
  head_pairs pairs;
  float student_scale, teacher_scale;
  stat *lse, *teacher_lse; /* [B,H,N], by the student's heads; lse NULL: not wanted */
  stat *partial;           /* one sum of rows' losses a warp */
};

/* A warp's rows: the maxima m, m' and sums l, l' of the student's logits and the teacher's, and cross (below). The sums
 * are of this lane's columns. */
template <int R>
struct row_sums {
  float m[R][2], teacher_m[R][2], l[R][2], teacher_l[R][2], cross[R][2];
};

/* Adds a tile of logits (times log2(e)): what was summed under lower maxima is rescaled first. */
template <int R, int N>
static __device__ __forceinline__ void add_tile(row_sums<R> &sums, strip<R, N> &s, strip<R, N> &t) {
  float before[R][2], teacher_before[R][2];
  for (int r = 0; r < R; r++)
    for (int i = 0; i < 2; i++) before[r][i] = sums.m[r][i], teacher_before[r][i] = sums.teacher_m[r][i];
  raise_maxima(sums.m, s);
  raise_maxima(sums.teacher_m, t);
  for (int r = 0; r < R; r++)
    for (int i = 0; i < 2; i++) {
      float factor = fast_exp2(teacher_before[r][i] - sums.teacher_m[r][i]);
      sums.cross[r][i] = (sums.cross[r][i] + sums.teacher_l[r][i] * (sums.m[r][i] - before[r][i])) * factor;
      sums.teacher_l[r][i] *= factor;
      sums.l[r][i] *= fast_exp2(before[r][i] - sums.m[r][i]);
    }
  each(t, s, [&](float &t_ij, float s_ij, int r, int i, int) {
    float e = fast_exp2(t_ij - sums.teacher_m[r][i]);
    sums.teacher_l[r][i] += e;
    sums.cross[r][i] += e * (sums.m[r][i] - s_ij);
    sums.l[r][i] += fast_exp2(s_ij - sums.m[r][i]);
  });
}

/* Grid: blocks of query rows of (image, pair). Like attention's forward, with the maxima m, m' and sums l, l' of the
 * student's logits s and the teacher's t, and the row's
 *   cross = sum_j exp2(t_j − m')·(m − s_j)     (logits times log2(e)), whose terms are never negative, so that
 *   loss = ln(2)·(log2(l) + cross / l')        cancels nothing. */
static __global__ void __launch_bounds__(MOST_WARPS *PG_WARP) rows_loss(loss_case x) {
  constexpr int R = loss_tiles::R, K = loss_tiles::K;
  PG_SHARED_DYNAMIC(real, shared);
  int warps = blockDim.x / PG_WARP, block_rows = warps * 16 * R, my_row = warp_index() * 16 * R;
  int tokens = x.student.tokens, columns = padded(x.student.size), teacher_columns = padded(x.teacher.size);
  place at = place_of(x.pairs.pairs, tokens, block_rows);
  int pair = at.head, head = head_in(x.pairs.students, pair), teacher_head = teacher_of(x.pairs, head);
  stat *partial = x.partial + (int64_t)blockIdx.x * warps + warp_index();
  if (head < 0 || head >= x.student.heads || teacher_head < 0 || pair_of(x.pairs, head) != pair) {
    if (threadIdx.x % PG_WARP == 0) *partial = NAN; /* the map names a head that is not there, or one twice */
    return;
  }

  real *queries = shared, *teacher_queries = queries + tile_elements(block_rows, columns);
  real *keys = teacher_queries + tile_elements(block_rows, teacher_columns);
  real *teacher_keys = keys + tile_elements(2 * K, columns);
  auto load = [&](int tile) {
    int slot = tile % 2 * K;
    load_tile(keys + tile_elements(slot, columns), matrix_of(x.student, at.image, head, KEYS), tile * K, K, columns);
    load_tile(teacher_keys + tile_elements(slot, teacher_columns), matrix_of(x.teacher, at.image, teacher_head, KEYS),
              tile * K, K, teacher_columns);
    copy_commit();
  };
  load_tile(queries, matrix_of(x.student, at.image, head, QUERIES), at.first, block_rows, columns);
  load_tile(teacher_queries, matrix_of(x.teacher, at.image, teacher_head, QUERIES), at.first, block_rows, teacher_columns);
  load(0);

  row_sums<R> sums = {};
  for (int r = 0; r < R; r++) sums.m[r][0] = sums.m[r][1] = sums.teacher_m[r][0] = sums.teacher_m[r][1] = least;
  for (int tile = 0; tile * K < tokens; tile++) {
    copy_wait<0>();
    __syncthreads();
    if ((tile + 1) * K < tokens) load(tile + 1);
    int slot = tile % 2 * K, left = tokens - tile * K;
    strip<R, K / 8> s = {}, t = {};
    multiply_rows(s, queries + tile_elements(my_row, columns), keys + tile_elements(slot, columns), columns);
    multiply_rows(t, teacher_queries + tile_elements(my_row, teacher_columns),
                  teacher_keys + tile_elements(slot, teacher_columns), teacher_columns);
    each(s, [&](float &s_ij, int, int, int) { s_ij *= x.student_scale * log2_e; });
    each(t, [&](float &t_ij, int, int, int) { t_ij *= x.teacher_scale * log2_e; });
    mask_columns(s, left, least);
    mask_columns(t, left, least);
    add_tile(sums, s, t);
  }

  float loss = 0.0f;
  for (int r = 0; r < R; r++)
    for (int i = 0; i < 2; i++) {
      float sum = quad_sum(sums.l[r][i]), teacher_sum = quad_sum(sums.teacher_l[r][i]);
      float terms = quad_sum(sums.cross[r][i]);
      int row = at.first + my_row + 16 * r + 8 * i + lane_row();
      if (row >= tokens || lane_column() != 0) continue;
      int64_t to = (at.image * x.student.heads + head) * tokens + row;
      if (x.lse) x.lse[to] = ln_2 * (sums.m[r][i] + log2f(sum));
      if (x.teacher_lse) x.teacher_lse[to] = ln_2 * (sums.teacher_m[r][i] + log2f(teacher_sum));
      loss += ln_2 * (log2f(sum) + terms / teacher_sum);
    }
  loss = warp_sum(loss);
  if (threadIdx.x % PG_WARP == 0) *partial = loss;
}

/* ---- calls ---- */

struct loss_launch {
  int warps;
  unsigned blocks;
  size_t shared_bytes;
};

static loss_launch loss_launch_of(const alignment &a) {
  const int rows = 16 * loss_tiles::R, keys = 2 * loss_tiles::K;
  int columns = padded((int)a.p.size), teacher_columns = padded((int)a.teacher->shape[4]);
  int64_t tiles = tile_elements(keys, columns) + tile_elements(keys, teacher_columns);
  int64_t queries = tile_elements(rows, columns) + tile_elements(rows, teacher_columns);
  int warps = warps_for(a.p.tokens, rows, tiles, queries);
  return {warps, row_blocks(a.p.images * a.pairs, a.p.tokens, warps * rows),
          (size_t)(tiles + warps * queries) * sizeof(real)};
}

/* Scratch: lse, teacher_lse and delta [B,H,N], then the partial losses. */
static int64_t statistics_of(const alignment &a) { return a.p.images * a.p.heads * a.p.tokens; }

static int64_t scratch_bytes(const alignment &a) {
  if (!are_packed(&a)) return 0; /* the call itself says what is wrong */
  loss_launch launch = loss_launch_of(a);
  return (3 * statistics_of(a) + (int64_t)launch.blocks * launch.warps) * (int64_t)sizeof(stat);
}

static head_pairs pairs_of(const alignment &a) {
  return {a.student_heads, a.teacher_heads, (int)a.pairs, (int)a.teacher->shape[3]};
}

/* The teacher's lse, the student's if it is wanted, and the loss if it is. */
static void launch_loss(const alignment &a, const pg_call *call, bool lse, stat *loss) {
  loss_launch launch = loss_launch_of(a);
  stat *scratch = static_cast<stat *>(call->scratch), *partial = scratch + 3 * statistics_of(a);
  loss_case x = {head_tensor_of(a.student), head_tensor_of(a.teacher, a.skip), pairs_of(a), a.student_scale,
                 a.teacher_scale, lse ? scratch : nullptr, scratch + statistics_of(a), partial};
  LAUNCH(rows_loss, launch.blocks, launch.warps * PG_WARP, launch.shared_bytes, call->stream, x);
  if (loss)
    pg_add_partial_sums(loss, partial, (int64_t)launch.blocks * launch.warps, (double)(a.p.images * a.pairs * a.p.tokens),
                        call->stream);
}

/* The gradient's call without the attention. */
static backward_case gradient_of(const alignment &a, const pg_call *call, const pg_view *dqkv, const stat *coefficient) {
  stat *scratch = static_cast<stat *>(call->scratch);
  backward_case x = {};
  x.qkv = head_tensor_of(a.student), x.dqkv = head_tensor_of(dqkv);
  x.lse = scratch, x.scale = a.student_scale;
  x.teacher = head_tensor_of(a.teacher, a.skip), x.pairs = pairs_of(a), x.teacher_scale = a.teacher_scale;
  x.teacher_lse = scratch + statistics_of(a), x.delta = scratch + 2 * statistics_of(a);
  x.coefficient = coefficient, x.terms = (float)(a.p.images * a.pairs * a.p.tokens);
  return x;
}

static pg_status expect_head_sizes(const char *name, const alignment &a) {
  pg_status status = expect_head_size(name, a.student);
  return status ? status : expect_head_size(name, a.teacher);
}

int64_t PG_CUDA(attention_alignment_scratch)(const pg_call *call) {
  const alignment a = alignment_of_forward(call);
  return scratch_bytes(a);
}

pg_status PG_CUDA(attention_alignment)(const pg_call *call) {
  const attention_alignment_views v = attention_alignment_of(call);
  alignment a;
  pg_status status = expect_attention_alignment(call, &a);
  if (!status) status = expect_head_sizes("attention_alignment", a);
  if (status) return status;
  launch_loss(a, call, false, pg_data<stat>(v.loss));
  return pg_launched("attention_alignment");
}

int64_t PG_CUDA(attention_alignment_backward_scratch)(const pg_call *call) {
  const alignment a = alignment_of_backward(call);
  return scratch_bytes(a);
}

pg_status PG_CUDA(attention_alignment_backward)(const pg_call *call) {
  const attention_alignment_backward_views v = attention_alignment_backward_of(call);
  alignment a;
  pg_status status = expect_attention_alignment_backward(call, &a);
  if (!status) status = expect_head_sizes("attention_alignment_backward", a);
  if (status) return status;
  launch_loss(a, call, true, nullptr);
  launch_backward<true>(gradient_of(a, call, v.dstudent, pg_data<stat>(v.coefficient)), a.p.images, call->stream);
  return pg_launched("attention_alignment_backward");
}

int64_t PG_CUDA(attention_aligned_backward_scratch)(const pg_call *call) {
  const alignment a = alignment_of_aligned_backward(call);
  return scratch_bytes(a);
}

pg_status PG_CUDA(attention_aligned_backward)(const pg_call *call) {
  const attention_aligned_backward_views v = attention_aligned_backward_of(call);
  alignment a;
  pg_status status = expect_attention_aligned_backward(call, &a);
  if (!status) status = expect_head_sizes("attention_aligned_backward", a);
  if (status) return status;
  launch_loss(a, call, false, pg_data<stat>(v.loss));
  backward_case x = gradient_of(a, call, v.dqkv, pg_data<stat>(v.coefficient));
  x.dout = head_tensor_of(v.dout), x.out = head_tensor_of(v.out), x.lse = pg_data<stat>(v.lse);
  launch_backward<true>(x, a.p.images, call->stream);
  return pg_launched("attention_aligned_backward");
}
