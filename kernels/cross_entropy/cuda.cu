#include "cuda.h"
#include "cross_entropy/check.h"
#include "cross_entropy/cross_entropy.h"

struct problem {
  int64_t rows, classes;
  const real *logits;
  const void *labels;
  bool wide; /* labels are int64, not int32 */
  stat smoothing;
};

static __device__ __forceinline__ int64_t label_of(const problem &p, int64_t row) {
  return p.wide ? static_cast<const int64_t *>(p.labels)[row] : static_cast<const int32_t *>(p.labels)[row];
}
static __device__ __forceinline__ bool is_class(const problem &p, int64_t label) {
  return label >= 0 && label < p.classes;
}

static pg_status problem_of(const char *name, const pg_view *logits, const pg_view *labels, double smoothing,
                            problem *p) {
  pg_status status = expect_cross_entropy(name, logits, labels);
  if (status) return status;
  bool wide = labels->dtype == PG_INT64;
  *p = {logits->shape[0], logits->shape[1], pg_data<real>(logits), labels->data, wide, (stat)smoothing};
  return PG_OK;
}

/* Scratch: the rows' losses. */
int64_t PG_CUDA(cross_entropy_scratch)(const pg_call *call) {
  const cross_entropy_views v = cross_entropy_of(call);
  return v.logits->ndim == 2 ? v.logits->shape[0] * (int64_t)sizeof(stat) : 0;
}

/* Grid: pg_row_blocks. */
template <int N, int THREADS>
static __global__ void __launch_bounds__(PG_ROW_BLOCK) row_losses(problem p, stat *lse, stat *losses) {
  int64_t r = row_of_thread<THREADS>();
  int place = place_in_row<THREADS>();
  if (r >= p.rows) return; /* a whole warp; a block has a row */
  const real *row = p.logits + r * p.classes;
  stat v[N], most = -INFINITY, sum = 0, exponentials = 0;
  for (int64_t c = place * N; c < p.classes; c += THREADS * N) {
    load_some<N>(v, row + c);
    for (int k = 0; k < N; k++) {
      most = fmaxf(most, v[k]);
      sum += v[k];
    }
  }
  most = row_max<THREADS>(most), sum = row_sum<THREADS>(sum);
  for (int64_t c = place * N; c < p.classes; c += THREADS * N) {
    load_some<N>(v, row + c);
    for (int k = 0; k < N; k++) exponentials += pg_exp(v[k] - most);
  }
  exponentials = row_sum<THREADS>(exponentials);
  if (place != 0) return;
  int64_t label = label_of(p, r);
  stat at_label = is_class(p, label) ? load(row[label]) : NAN, level = most + pg_log(exponentials);
  stat loss = level - at_label;
  if (p.smoothing > 0) loss += p.smoothing * (at_label - sum / (stat)p.classes);
  lse[r] = level;
  losses[r] = loss;
}

pg_status PG_CUDA(cross_entropy)(const pg_call *call) {
  const cross_entropy_views v = cross_entropy_of(call);
  problem p;
  pg_status status = problem_of("cross_entropy", v.logits, v.labels, cross_entropy_floats_of(call).smoothing, &p);
  if (status) return status;
  bool vectors = pg_vectorisable(p.logits, p.classes, p.classes);
  auto kernel = vectors ? row_losses<PG_VECTOR, PG_WARP> : row_losses<1, PG_WARP>;
  if (p.classes > PG_LONG_ROW) kernel = vectors ? row_losses<PG_VECTOR, PG_ROW_BLOCK> : row_losses<1, PG_ROW_BLOCK>;
  stat *losses = static_cast<stat *>(call->scratch);
  LAUNCH(kernel, pg_row_blocks(p.rows, p.classes), PG_ROW_BLOCK, 0, call->stream, p, pg_data<stat>(v.lse), losses);
  pg_add_partial_sums(pg_data<stat>(v.loss), losses, p.rows, (stat)p.rows, call->stream);
  return pg_launched("cross_entropy");
}

/* ---- backward ---- */

/* Grid: pg_row_blocks. dlogits may be logits. */
template <int N, int THREADS>
static __global__ void __launch_bounds__(PG_ROW_BLOCK)
    row_gradients(problem p, real *dlogits, const stat *dloss, const stat *lse) {
  int64_t r = row_of_thread<THREADS>();
  if (r >= p.rows) return;
  const real *row = p.logits + r * p.classes;
  int64_t label = label_of(p, r);
  stat scale = is_class(p, label) ? *dloss / (stat)p.rows : NAN, level = lse[r], v[N];
  stat even = p.smoothing / (stat)p.classes;
  for (int64_t c = place_in_row<THREADS>() * N; c < p.classes; c += THREADS * N) {
    load_some<N>(v, row + c);
    for (int k = 0; k < N; k++)
      v[k] = scale * (pg_exp(v[k] - level) - even - (c + k == label ? 1 - p.smoothing : 0));
    store_some<N>(dlogits + r * p.classes + c, v);
  }
}

pg_status PG_CUDA(cross_entropy_backward)(const pg_call *call) {
  const cross_entropy_backward_views v = cross_entropy_backward_of(call);
  problem p;
  pg_status status =
      problem_of("cross_entropy_backward", v.logits, v.labels, cross_entropy_backward_floats_of(call).smoothing, &p);
  if (status) return status;
  real *dlogits = pg_data<real>(v.dlogits);
  bool vectors = pg_vectorisable(p.logits, p.classes, p.classes) && pg_vectorisable(dlogits, p.classes, p.classes);
  auto kernel = vectors ? row_gradients<PG_VECTOR, PG_WARP> : row_gradients<1, PG_WARP>;
  if (p.classes > PG_LONG_ROW)
    kernel = vectors ? row_gradients<PG_VECTOR, PG_ROW_BLOCK> : row_gradients<1, PG_ROW_BLOCK>;
  LAUNCH(kernel, pg_row_blocks(p.rows, p.classes), PG_ROW_BLOCK, 0, call->stream, p, dlogits, pg_data<stat>(v.dloss),
         pg_data<stat>(v.lse));
  return pg_launched("cross_entropy_backward");
}
