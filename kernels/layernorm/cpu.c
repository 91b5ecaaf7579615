#include "cpu.h"
#include "layernorm/check.h"
#include "layernorm/layernorm.h"

/* Both forms are one computation over groups of rows: a group (an image, or all rows of the plain form) has one
 * multiplier `base + scale_j` and one shift. */
typedef struct normalisation {
  int64_t groups, rows, width; /* x is [groups, rows, width] */
  stat base;                   /* 0: scale is the whole multiplier; 1: it is added to one */
  const real *scale, *shift;   /* row of the first group, or NULL: multiplier 1, shift 0 */
  int64_t scale_stride, shift_stride;
} normalisation;


/* ---- forward ---- */

/* Sums run in this many lanes, several vectors wide: one vector's chain of additions would wait for itself. */
enum { LANES = 64 };

static stat add_lanes(const stat *lanes) {
  stat sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int l = 0; l < LANES; l++) sum += lanes[l];
  return sum;
}

static void row_statistics(const real *x, int64_t width, stat epsilon, stat *mean, stat *rstd) {
  stat sum[LANES] = {0}, squares[LANES] = {0};
  int64_t whole = width / LANES * LANES;
  for (int64_t j = 0; j < whole; j += LANES)
#pragma omp simd
    for (int l = 0; l < LANES; l++) sum[l] += load(x[j + l]);
  for (int64_t j = whole; j < width; j++) sum[j - whole] += load(x[j]);
  stat m = add_lanes(sum) / (stat)width;
  for (int64_t j = 0; j < whole; j += LANES)
#pragma omp simd
    for (int l = 0; l < LANES; l++) {
      stat d = load(x[j + l]) - m;
      squares[l] += d * d;
    }
  for (int64_t j = whole; j < width; j++) {
    stat d = load(x[j]) - m;
    squares[j - whole] += d * d;
  }
  *mean = m;
  *rstd = 1 / (stat)sqrt((double)(add_lanes(squares) / (stat)width + epsilon));
}

static void normalise_row(real *y, const real *x, const real *scale, const real *shift, stat base, int64_t width,
                          stat mean, stat rstd) {
  if (scale && shift) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++)
      y[j] = store((load(x[j]) - mean) * rstd * (base + load(scale[j])) + load(shift[j]));
  } else if (scale) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) y[j] = store((load(x[j]) - mean) * rstd * (base + load(scale[j])));
  } else if (shift) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) y[j] = store((load(x[j]) - mean) * rstd + load(shift[j]));
  } else {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) y[j] = store((load(x[j]) - mean) * rstd);
  }
}

static void forward(const normalisation *n, real *y, stat *mean, stat *rstd, const real *x, stat epsilon) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < n->groups * n->rows; r++) {
    int64_t group = r / n->rows;
    row_statistics(x + r * n->width, n->width, epsilon, mean + r, rstd + r);
    normalise_row(y + r * n->width, x + r * n->width, n->scale ? n->scale + group * n->scale_stride : NULL,
                  n->shift ? n->shift + group * n->shift_stride : NULL, n->base, n->width, mean[r], rstd[r]);
  }
}

pg_status PG_CPU(layernorm)(const pg_call *call) {
  const layernorm_views v = layernorm_of(call);
  pg_status status = expect_layernorm(call);
  if (status) return status;
  int64_t width = v.x->shape[v.x->ndim - 1], rows = width ? pg_numel(v.x) / width : 0;
  normalisation n = {.groups = 1, .rows = rows, .width = width, .base = 0};
  n.scale = v.weight->data;
  n.shift = v.bias->data;
  forward(&n, v.y->data, v.mean->data, v.rstd->data, v.x->data, (stat)layernorm_floats_of(call).epsilon);
  return PG_OK;
}

pg_status PG_CPU(layernorm_modulate)(const pg_call *call) {
  const layernorm_modulate_views v = layernorm_modulate_of(call);
  pg_status status = expect_layernorm_modulate(call);
  if (status) return status;
  normalisation n = {.groups = v.x->shape[0], .rows = v.x->shape[1], .width = v.x->shape[2], .base = 1,
                     .scale = v.scale->data, .scale_stride = v.scale->stride[0],
                     .shift = v.shift->data, .shift_stride = v.shift->stride[0]};
  forward(&n, v.y->data, v.mean->data, v.rstd->data, v.x->data, (stat)layernorm_modulate_floats_of(call).epsilon);
  return PG_OK;
}

/* ---- backward ---- */

/* One row: dx, and what it adds to the chunk's sums of dy·x̂ and dy. `dx` may be dy or dresidual. */
static void backward_row(real *dx, stat *sum_scale, stat *sum_shift, const real *dy, const real *x, const real *scale,
                         const real *dresidual, stat base, int64_t width, stat mean, stat rstd) {
  stat sum_g = 0, sum_gx = 0;
  if (scale) {
#pragma omp simd reduction(+ : sum_g, sum_gx)
    for (int64_t j = 0; j < width; j++) {
      stat d = load(dy[j]), normal = (load(x[j]) - mean) * rstd, g = d * (base + load(scale[j]));
      sum_g += g;
      sum_gx += g * normal;
      sum_scale[j] += d * normal;
      sum_shift[j] += d;
    }
  } else {
#pragma omp simd reduction(+ : sum_g, sum_gx)
    for (int64_t j = 0; j < width; j++) {
      stat g = load(dy[j]), normal = (load(x[j]) - mean) * rstd;
      sum_g += g;
      sum_gx += g * normal;
      sum_scale[j] += g * normal;
      sum_shift[j] += g;
    }
  }
  stat mean_g = sum_g / (stat)width, mean_gx = sum_gx / (stat)width;
  if (scale && dresidual) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
      stat g = load(dy[j]) * (base + load(scale[j])), normal = (load(x[j]) - mean) * rstd;
      dx[j] = store(load(dresidual[j]) + rstd * (g - mean_g - normal * mean_gx));
    }
  } else if (scale) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
      stat g = load(dy[j]) * (base + load(scale[j])), normal = (load(x[j]) - mean) * rstd;
      dx[j] = store(rstd * (g - mean_g - normal * mean_gx));
    }
  } else {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
      stat around = dresidual ? load(dresidual[j]) : 0, normal = (load(x[j]) - mean) * rstd;
      dx[j] = store(around + rstd * (load(dy[j]) - mean_g - normal * mean_gx));
    }
  }
}

/* Scratch: [groups, chunks, 2, width] partial sums. */
static int64_t backward_scratch(int64_t groups, int64_t rows, int64_t width) {
  return groups * pg_pieces(rows, PG_CHUNK_ROWS) * 2 * width * (int64_t)sizeof(stat);
}

/* Adds the chunks' sums in order; which: 0 for Σ dy·x̂, 1 for Σ dy. */
static void add_chunks(real *out, const stat *partial, const normalisation *n, int which) {
  int64_t chunks = pg_pieces(n->rows, PG_CHUNK_ROWS);
  for (int64_t j = 0; j < n->width; j++) {
    stat sum = 0;
    for (int64_t c = 0; c < chunks; c++) sum += partial[(c * 2 + which) * n->width + j];
    out[j] = store(sum);
  }
}

/* `dscale` and `dshift` are [groups, width] or NULL. */
static void backward(const normalisation *n, real *dx, real *dscale, real *dshift, const real *dy, const real *x,
                     const stat *mean, const stat *rstd, const real *dresidual, stat *partial) {
  int64_t width = n->width, chunks = pg_pieces(n->rows, PG_CHUNK_ROWS);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t piece = 0; piece < n->groups * chunks; piece++) {
      int64_t group = piece / chunks, first = piece % chunks * PG_CHUNK_ROWS;
      int64_t last = first + PG_CHUNK_ROWS < n->rows ? first + PG_CHUNK_ROWS : n->rows;
      stat *sum_scale = partial + piece * 2 * width, *sum_shift = sum_scale + width;
      memset(sum_scale, 0, (size_t)(2 * width) * sizeof *sum_scale);
      for (int64_t i = first; i < last; i++) {
        int64_t r = group * n->rows + i;
        backward_row(dx + r * width, sum_scale, sum_shift, dy + r * width, x + r * width,
                     n->scale ? n->scale + group * n->scale_stride : NULL, dresidual ? dresidual + r * width : NULL,
                     n->base, width, mean[r], rstd[r]);
      }
    }
#pragma omp for schedule(static)
    for (int64_t group = 0; group < n->groups; group++) {
      const stat *sums = partial + group * chunks * 2 * width;
      if (dscale) add_chunks(dscale + group * width, sums, n, 0);
      if (dshift) add_chunks(dshift + group * width, sums, n, 1);
    }
  }
}

int64_t PG_CPU(layernorm_backward_scratch)(const pg_call *call) {
  const layernorm_backward_views v = layernorm_backward_of(call);
  int64_t width = v.x->ndim ? v.x->shape[v.x->ndim - 1] : 0;
  return width ? backward_scratch(1, pg_numel(v.x) / width, width) : 0;
}

pg_status PG_CPU(layernorm_backward)(const pg_call *call) {
  const layernorm_backward_views v = layernorm_backward_of(call);
  pg_status status = expect_layernorm_backward(call);
  if (status) return status;
  int64_t width = v.x->shape[v.x->ndim - 1];
  normalisation n = {.groups = 1, .rows = width ? pg_numel(v.x) / width : 0, .width = width, .base = 0};
  n.scale = v.weight->data;
  backward(&n, v.dx->data, v.dweight->data, v.dbias->data, v.dy->data, v.x->data, v.mean->data,
           v.rstd->data, v.dresidual->data, call->scratch);
  return PG_OK;
}

int64_t PG_CPU(layernorm_modulate_backward_scratch)(const pg_call *call) {
  const layernorm_modulate_backward_views v = layernorm_modulate_backward_of(call);
  return v.x->ndim == 3 ? backward_scratch(v.x->shape[0], v.x->shape[1], v.x->shape[2]) : 0;
}

pg_status PG_CPU(layernorm_modulate_backward)(const pg_call *call) {
  const layernorm_modulate_backward_views v = layernorm_modulate_backward_of(call);
  pg_status status = expect_layernorm_modulate_backward(call);
  if (status) return status;
  normalisation n = {.groups = v.x->shape[0], .rows = v.x->shape[1], .width = v.x->shape[2], .base = 1,
                     .scale = v.scale->data, .scale_stride = v.scale->stride[0]};
  backward(&n, v.dx->data, v.dscale->data, v.dshift->data, v.dy->data, v.x->data, v.mean->data,
           v.rstd->data, v.dresidual->data, call->scratch);
  return PG_OK;
}
