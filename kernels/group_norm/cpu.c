/* Group normalisation on the CPU. A thread takes whole groups of an image. What is summed is summed plane by plane,
 * and the planes' sums are added in order. */
#include "cpu.h"

#include "activation/functions.h"
#include "group_norm/check.h"
#include "group_norm/group_norm.h"

/* Sums run in this many lanes, over this many elements at most; blocks of them are added in float64. */
enum { LANES = 64, BLOCK = 4096 };

static double add_lanes(const stat *lanes) {
  stat sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int l = 0; l < LANES; l++) sum += lanes[l];
  return (double)sum;
}

/* Adds to total[k] the sum of what `term` says for an index j of [0, n), as values[k]. */
#define SUM_BLOCKS(count, n, total, term)                                                                              \
  for (int64_t start = 0; start < (n); start += BLOCK) {                                                               \
    const int64_t end = start + BLOCK < (n) ? start + BLOCK : (n), whole = start + (end - start) / LANES * LANES;      \
    stat lanes[count][LANES] = {{0}};                                                                                  \
    for (int64_t from = start; from < whole; from += LANES) {                                                          \
      _Pragma("omp simd") for (int l = 0; l < LANES; l++) {                                                            \
        const int64_t j = from + l;                                                                                    \
        term                                                                                                           \
      }                                                                                                                \
    }                                                                                                                  \
    for (int64_t j = whole; j < end; j++) {                                                                            \
      const int64_t l = j - whole;                                                                                     \
      term                                                                                                             \
    }                                                                                                                  \
    for (int k = 0; k < (count); k++) (total)[k] += add_lanes(lanes[k]);                                               \
  }

/* One plane's multiplier and shift around its group's statistics: x̂ = (x − mean)·rstd, z = x̂·weight + bias. */
typedef struct plane {
  stat mean, rstd, weight, bias;
} plane;

static plane plane_of(const pg_view *weight, const pg_view *bias, int64_t channel, stat mean, stat rstd) {
  const real *w = weight->data, *b = bias->data;
  return (plane){mean, rstd, w ? load(w[channel]) : 1, b ? load(b[channel]) : 0};
}

/* Runs `statement` with f a constant, so that its loop vectorises. */
#define FOR_ACTIVATION(kind, statement)                                                                                \
  switch (kind) {                                                                                                      \
  case ACTIVATION_gelu_tanh: { enum { f = ACTIVATION_gelu_tanh }; statement; } break;                                  \
  case ACTIVATION_gelu_erf: { enum { f = ACTIVATION_gelu_erf }; statement; } break;                                    \
  case ACTIVATION_silu: { enum { f = ACTIVATION_silu }; statement; } break;                                            \
  case ACTIVATION_quick_gelu: { enum { f = ACTIVATION_quick_gelu }; statement; } break;                                \
  default: { enum { f = ACTIVATION_NONE }; statement; }                                                                \
  }

/* ---- forward ---- */

/* The mean and 1/deviation of the elements x [members, size]. The deviation goes plane by plane around the plane's own
 * mean while that is in a cache, and the planes' means around the group's. */
static void group_statistics(const real *x, const group_sizes *n, stat epsilon, double *means, stat *mean, stat *rstd) {
  double sum = 0, squares = 0;
  for (int64_t c = 0; c < n->members; c++) {
    const real *p = x + c * n->size;
    double total[1] = {0};
    SUM_BLOCKS(1, n->size, total, lanes[0][l] += load(p[j]);)
    const stat own = (stat)(total[0] / (double)n->size);
    double around[2] = {0};
    SUM_BLOCKS(2, n->size, around, const stat d = load(p[j]) - own; lanes[0][l] += d; lanes[1][l] += d * d;)
    means[c] = (double)own + around[0] / (double)n->size;
    squares += around[1] - around[0] * around[0] / (double)n->size;
    sum += means[c];
  }
  const double centre = sum / (double)n->members;
  for (int64_t c = 0; c < n->members; c++) squares += (means[c] - centre) * (means[c] - centre) * (double)n->size;
  *mean = (stat)centre;
  *rstd = (stat)(1 / sqrt(squares / (double)(n->members * n->size) + (double)epsilon));
}

PG_FUNCTION void normalise_plane(real *y, const real *x, int64_t size, plane p, const int activation) {
  const stat times = p.rstd * p.weight;
#pragma omp simd
  for (int64_t j = 0; j < size; j++) y[j] = store(activate((load(x[j]) - p.mean) * times + p.bias, 0, activation));
}

int64_t PG_CPU(group_norm_scratch)(const pg_call *call) {
  const pg_view *x = group_norm_of(call).x;
  return x->ndim >= 2 ? x->shape[0] * x->shape[1] * (int64_t)sizeof(double) : 0;
}

pg_status PG_CPU(group_norm)(const pg_call *call) {
  const group_norm_views v = group_norm_of(call);
  const pg_status status = expect_group_norm(call);
  if (status) return status;
  const int activation = (int)group_norm_ints_of(call).activation;
  const stat epsilon = (stat)group_norm_floats_of(call).epsilon;
  const group_sizes n = group_sizes_of(v.x, group_norm_ints_of(call).groups);
  real *y = v.y->data;
  const real *x = v.x->data;
  stat *mean = v.mean->data, *rstd = v.rstd->data;
  double *means = call->scratch;
#pragma omp parallel for schedule(static)
  for (int64_t g = 0; g < n.images * n.groups; g++) {
    const int64_t first = g * n.members;
    group_statistics(x + first * n.size, &n, epsilon, means + first, mean + g, rstd + g);
    for (int64_t c = first; c < first + n.members; c++) {
      const plane p = plane_of(v.weight, v.bias, c % n.channels, mean[g], rstd[g]);
      FOR_ACTIVATION(activation, normalise_plane(y + c * n.size, x + c * n.size, n.size, p, f))
    }
  }
  return PG_OK;
}

/* ---- backward ---- */

/* sums[0] = Σ d, sums[1] = Σ d·x̂ of a plane. */
PG_FUNCTION void sum_plane(double sums[2], const real *dy, const real *x, int64_t size, plane p,
                           const int activation) {
  sums[0] = sums[1] = 0;
  SUM_BLOCKS(2, size, sums, {
    const stat normal = (load(x[j]) - p.mean) * p.rstd;
    const stat d = activation ? activate(load(dy[j]), normal * p.weight + p.bias, ACTIVATION_DERIVATIVE + activation)
                              : load(dy[j]);
    lanes[0][l] += d;
    lanes[1][l] += d * normal;
  })
}

PG_FUNCTION void backward_plane(real *dx, const real *dy, const real *x, int64_t size, plane p, stat mean_g,
                                stat mean_gx, const int activation) {
#pragma omp simd
  for (int64_t j = 0; j < size; j++) {
    const stat normal = (load(x[j]) - p.mean) * p.rstd;
    const stat d = activation ? activate(load(dy[j]), normal * p.weight + p.bias, ACTIVATION_DERIVATIVE + activation)
                              : load(dy[j]);
    dx[j] = store(p.rstd * (d * p.weight - mean_g - normal * mean_gx));
  }
}

/* dweight and dbias: the images' sums of a channel, in order. */
static void add_images(real *out, const double *sums, const group_sizes *n, int which) {
  for (int64_t c = 0; c < n->channels; c++) {
    double sum = 0;
    for (int64_t b = 0; b < n->images; b++) sum += sums[(b * n->channels + c) * 2 + which];
    out[c] = store((stat)sum);
  }
}

int64_t PG_CPU(group_norm_backward_scratch)(const pg_call *call) {
  const pg_view *x = group_norm_backward_of(call).x;
  return x->ndim >= 2 ? x->shape[0] * x->shape[1] * 2 * (int64_t)sizeof(double) : 0;
}

pg_status PG_CPU(group_norm_backward)(const pg_call *call) {
  const group_norm_backward_views v = group_norm_backward_of(call);
  const pg_status status = expect_group_norm_backward(call);
  if (status) return status;
  const int activation = (int)group_norm_backward_ints_of(call).activation;
  const group_sizes n = group_sizes_of(v.x, group_norm_backward_ints_of(call).groups);
  real *dx = v.dx->data;
  const real *dy = v.dy->data, *x = v.x->data;
  const stat *mean = v.mean->data, *rstd = v.rstd->data;
  double *sums = call->scratch;
#pragma omp parallel for schedule(static)
  for (int64_t g = 0; g < n.images * n.groups; g++) {
    const int64_t first = g * n.members;
    double sum_g = 0, sum_gx = 0;
    for (int64_t c = first; c < first + n.members; c++) {
      const plane p = plane_of(v.weight, v.bias, c % n.channels, mean[g], rstd[g]);
      FOR_ACTIVATION(activation, sum_plane(sums + 2 * c, dy + c * n.size, x + c * n.size, n.size, p, f))
      sum_g += sums[2 * c] * (double)p.weight;
      sum_gx += sums[2 * c + 1] * (double)p.weight;
    }
    const stat mean_g = (stat)(sum_g / (double)(n.members * n.size));
    const stat mean_gx = (stat)(sum_gx / (double)(n.members * n.size));
    for (int64_t c = first; c < first + n.members; c++) {
      const plane p = plane_of(v.weight, v.bias, c % n.channels, mean[g], rstd[g]);
      FOR_ACTIVATION(activation, backward_plane(dx + c * n.size, dy + c * n.size, x + c * n.size, n.size, p, mean_g,
                                                mean_gx, f))
    }
  }
  if (pg_present(v.dbias)) add_images(v.dbias->data, sums, &n, 0);
  if (pg_present(v.dweight)) add_images(v.dweight->data, sums, &n, 1);
  return PG_OK;
}
