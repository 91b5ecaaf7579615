#include "cuda.h"
#include "feature_alignment/check.h"
#include "feature_alignment/feature_alignment.h"

/* A warp takes a row; its lanes take elements, PG_VECTOR at a time where the addresses allow that. */
static const int warps = 8;

struct features { /* [B,N,Z], rows in one piece */
  const real *data;
  int64_t images, tokens, width, image_stride, token_stride;
};

static features features_of(const pg_view *v) {
  return {static_cast<const real *>(v->data), v->shape[0], v->shape[1], v->shape[2], v->stride[0], v->stride[1]};
}

static bool are_vectors(const features &f) {
  return pg_vectorisable(f.data, f.width, f.image_stride) && f.token_stride % PG_VECTOR == 0;
}

static __device__ __forceinline__ const real *row_of(const features &f, int64_t r) {
  return f.data + r / f.tokens * f.image_stride + r % f.tokens * f.token_stride;
}

static const stat smallest_norm = 1e-12f;

static __device__ __forceinline__ stat inverse_norm(stat squares) { return 1 / fmaxf(sqrtf(squares), smallest_norm); }

/* Scratch: the sum of `warps` rows' cosines, a block each. */
int64_t PG_CUDA(feature_alignment_scratch)(const pg_call *call) {
  const feature_alignment_views v = feature_alignment_of(call);
  return pg_pieces(pg_numel(v.inverse_norm_p), warps) * (int64_t)sizeof(stat);
}

/* Grid: `warps` rows a block. */
template <int N>
static __global__ void __launch_bounds__(warps *PG_WARP)
    compare_rows(features p, features z, stat *inverse_p, stat *inverse_z, stat *cosine, stat *partial) {
  int lane = threadIdx.x % PG_WARP;
  int64_t r = (int64_t)blockIdx.x * warps + threadIdx.x / PG_WARP;
  stat pp = 0, zz = 0, pz = 0, agreement = 0;
  if (r < p.images * p.tokens) {
    const real *student = row_of(p, r), *teacher = row_of(z, r);
    stat x[N], y[N];
#pragma unroll 4
    for (int64_t j = lane * N; j < p.width; j += PG_WARP * N) {
      load_some<N>(x, student + j);
      load_some<N>(y, teacher + j);
      for (int k = 0; k < N; k++) {
        pp += x[k] * x[k];
        zz += y[k] * y[k];
        pz += x[k] * y[k];
      }
    }
  }
  pp = warp_sum(pp), zz = warp_sum(zz), pz = warp_sum(pz);
  if (r < p.images * p.tokens && lane == 0) {
    inverse_p[r] = inverse_norm(pp);
    inverse_z[r] = inverse_norm(zz);
    cosine[r] = agreement = pz * inverse_norm(pp) * inverse_norm(zz);
  }
  agreement = block_sum<warps>(agreement);
  if (threadIdx.x == 0) partial[blockIdx.x] = agreement;
}

pg_status PG_CUDA(feature_alignment)(const pg_call *call) {
  const feature_alignment_views v = feature_alignment_of(call);
  pg_status status = expect_feature_alignment(call);
  if (status) return status;
  features student = features_of(v.p), teacher = features_of(v.z);
  int64_t rows = student.images * student.tokens;
  auto kernel = are_vectors(student) && are_vectors(teacher) ? compare_rows<PG_VECTOR> : compare_rows<1>;
  stat *partial = static_cast<stat *>(call->scratch);
  LAUNCH(kernel, pg_blocks(rows, warps), warps * PG_WARP, 0, call->stream, student, teacher,
         pg_data<stat>(v.inverse_norm_p), pg_data<stat>(v.inverse_norm_z), pg_data<stat>(v.cosine), partial);
  pg_add_partial_sums(pg_data<stat>(v.loss), partial, pg_pieces(rows, warps), -(stat)rows, call->stream);
  return pg_launched("feature_alignment");
}

/* ---- backward ---- */

struct saved {
  const stat *coefficient, *inverse_p, *inverse_z, *cosine;
};

/* Grid: `warps` rows a block. dp may be p. */
template <int N>
static __global__ void __launch_bounds__(warps *PG_WARP) turn_rows(features p, features z, real *dp, saved s) {
  int64_t r = (int64_t)blockIdx.x * warps + threadIdx.x / PG_WARP, rows = p.images * p.tokens;
  if (r >= rows) return;
  stat coefficient = -*s.coefficient / (stat)rows, inverse = s.inverse_p[r], x[N], y[N];
  stat along_z = coefficient * inverse * s.inverse_z[r];
  stat along_p = inverse < 1 / smallest_norm ? coefficient * s.cosine[r] * inverse * inverse : 0;
  const real *student = row_of(p, r), *teacher = row_of(z, r);
  for (int64_t j = threadIdx.x % PG_WARP * N; j < p.width; j += PG_WARP * N) {
    load_some<N>(x, student + j);
    load_some<N>(y, teacher + j);
    for (int k = 0; k < N; k++) x[k] = along_z * y[k] - along_p * x[k];
    store_some<N>(dp + r * p.width + j, x);
  }
}

pg_status PG_CUDA(feature_alignment_backward)(const pg_call *call) {
  const feature_alignment_backward_views v = feature_alignment_backward_of(call);
  pg_status status = expect_feature_alignment_backward(call);
  if (status) return status;
  features student = features_of(v.p), teacher = features_of(v.z);
  real *dp = pg_data<real>(v.dp);
  bool vectors = are_vectors(student) && are_vectors(teacher) && pg_vectorisable(dp, student.width, student.width);
  auto kernel = vectors ? turn_rows<PG_VECTOR> : turn_rows<1>;
  saved s = {pg_data<stat>(v.coefficient), pg_data<stat>(v.inverse_norm_p), pg_data<stat>(v.inverse_norm_z),
             pg_data<stat>(v.cosine)};
  LAUNCH(kernel, pg_blocks(student.images * student.tokens, warps), warps * PG_WARP, 0, call->stream, student, teacher,
         dp, s);
  return pg_launched("feature_alignment_backward");
}
