#include <omp.h>

#include "cpu.h"
#include "resize/geometry.h"
#include "resize/resize.h"

/* ---- weights ---- */

/* The weights of output i's inputs, into `row` [n]: returns the first input that `row` speaks of and, in *count, how
 * many there are. Without antialias an input beyond an edge is the edge's; with it the rest is scaled to a sum of one.
 * */
static int64_t weights_of(const geometry *g, int64_t n, int64_t n2, int64_t i, double *row, int64_t *count) {
  double centre, stretch, sum = 0;
  int64_t first, last;
  support_of(g, n, n2, i, &centre, &stretch, &first, &last);
  int64_t low = clamp_index(first, n), high = clamp_index(last, n);
  for (int64_t k = low; k <= high; k++) row[k - low] = 0;
  for (int64_t k = first; k <= last; k++) {
    double weight = filter(g, ((double)k - centre) / stretch);
    row[clamp_index(k, n) - low] += weight;
    sum += weight;
  }
  if (g->antialias)
    for (int64_t k = low; k <= high; k++) row[k - low] /= sum;
  *count = high - low + 1;
  return low;
}

static void build_forward(const geometry *g, band *m, double *row) {
  memset(m->weight, 0, (size_t)(m->taps * m->n_out) * sizeof *m->weight);
  for (int64_t i = 0; i < m->n_out; i++) {
    int64_t count, start = weights_of(g, m->n_in, m->n_out, i, row, &count);
    m->start[i] = (int32_t)start;
    for (int64_t k = 0; k < count; k++) m->weight[k * m->n_out + i] = (stat)row[k];
  }
}

/* The transpose: m maps n2 values to n. The outputs that input k of the forward reaches are a run of i. */
static void build_backward(const geometry *g, band *m, double *row) {
  int64_t n = m->n_out, n2 = m->n_in;
  memset(m->weight, 0, (size_t)(m->taps * n) * sizeof *m->weight);
  for (int64_t k = 0; k < n; k++) m->start[k] = -1;
  for (int64_t i = 0; i < n2; i++) {
    int64_t count, start = weights_of(g, n, n2, i, row, &count);
    for (int64_t k = start; k < start + count; k++) {
      if (m->start[k] < 0) m->start[k] = (int32_t)i;
      m->weight[(i - m->start[k]) * n + k] = (stat)row[k - start];
    }
  }
  for (int64_t k = 0; k < n; k++)
    if (m->start[k] < 0) m->start[k] = 0;
}

/* ---- applying two bands ---- */

/* The horizontal band where inner is 1: vectors of neighbouring outputs gather what they read. */
static void across_row(real *out, const stat *line, const band *m, stat *sum) {
  int64_t n = m->n_out;
  for (int64_t i = 0; i < n; i++) sum[i] = 0;
  for (int64_t k = 0; k < m->taps; k++) {
    const stat *weight = m->weight + k * n, *from = line + k;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) sum[i] += weight[i] * from[m->start[i]];
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) out[i] = store(sum[i]);
}

/* One row of the result: the vertical band over the rows of `in` [n_in, columns·inner] into `line`, then the horizontal
 * one from `line` into `out` [n_out, inner]. */
static void resample_row(real *out, stat *line, const real *in, const band *down, const band *across, int64_t row,
                         int64_t inner) {
  int64_t columns = across->n_in * inner;
  for (int64_t j = 0; j < columns; j++) line[j] = 0;
  for (int64_t k = 0; k < down->taps; k++) {
    stat weight = down->weight[k * down->n_out + row];
    if (weight == 0) continue;
    const real *from = in + (down->start[row] + k) * columns;
#pragma omp simd
    for (int64_t j = 0; j < columns; j++) line[j] += weight * load(from[j]);
  }
  stat *sum = line + columns + across->taps * inner;
  if (inner == 1) {
    across_row(out, line, across, sum);
    return;
  }
  for (int64_t i = 0; i < across->n_out; i++) {
    const stat *from = line + across->start[i] * inner;
    for (int64_t j = 0; j < inner; j++) sum[j] = 0;
    for (int64_t k = 0; k < across->taps; k++) {
      stat weight = across->weight[k * across->n_out + i];
      if (weight == 0) continue;
#pragma omp simd
      for (int64_t j = 0; j < inner; j++) sum[j] += weight * from[k * inner + j];
    }
    for (int64_t j = 0; j < inner; j++) out[i * inner + j] = store(sum[j]);
  }
}

/* Scratch, in order: both bands, a row for building them, and for each thread a line, zeros past its end, and sums. */
static int64_t line_length(const band *across, int64_t inner) {
  return (across->n_in + across->taps) * inner + (inner == 1 ? across->n_out : inner);
}

static int64_t longest(const geometry *g) {
  int64_t n = g->h > g->w ? g->h : g->w;
  return n > 1 ? n : 1;
}

static int64_t scratch_of(const geometry *g, int backward) {
  band down, across;
  bands_of(g, backward, &down, &across);
  return band_bytes(&down) + band_bytes(&across) + pg_round_up(longest(g) * (int64_t)sizeof(double), 64) +
         pg_kernel_threads() * pg_round_up(line_length(&across, g->inner) * (int64_t)sizeof(stat), 64);
}

static void run(const geometry *g, int backward, real *out, const real *in, char *scratch) {
  band down, across;
  bands_of(g, backward, &down, &across);
  char *at = place_band(&across, place_band(&down, scratch));
  double *row = (double *)(void *)at;
  at += pg_round_up(longest(g) * (int64_t)sizeof(double), 64);
  if (backward) {
    build_backward(g, &down, row);
    build_backward(g, &across, row);
  } else {
    build_forward(g, &down, row);
    build_forward(g, &across, row);
  }
  int64_t line_bytes = pg_round_up(line_length(&across, g->inner) * (int64_t)sizeof(stat), 64);
  int64_t in_skip = backward ? 0 : g->skip * g->inner, out_skip = backward ? g->skip * g->inner : 0;
  int64_t in_size = in_skip + down.n_in * across.n_in * g->inner;
  int64_t out_size = out_skip + down.n_out * across.n_out * g->inner;
#pragma omp parallel num_threads(pg_kernel_threads())
  {
    stat *line = (stat *)(void *)(at + omp_get_thread_num() * line_bytes);
    memset(line, 0, (size_t)line_bytes); /* taps past the last column have weight 0 and must not meet a NaN */
#pragma omp for schedule(static)
    for (int64_t k = 0; k < g->outer * down.n_out; k++) {
      int64_t plane = k / down.n_out, r = k % down.n_out;
      real *to = out + plane * out_size;
      if (r == 0)
        for (int64_t j = 0; j < out_skip; j++) to[j] = store(0);
      resample_row(to + out_skip + r * across.n_out * g->inner, line, in + plane * in_size + in_skip, &down, &across, r,
                   g->inner);
    }
  }
}

/* ---- kernels ---- */

int64_t PG_CPU(resize_scratch)(const pg_call *call) {
  const resize_views v = resize_of(call);
  geometry g = {0};
  return read_geometry(&g, "resize", call, v.x, v.y) ? -1 : scratch_of(&g, 0);
}

pg_status PG_CPU(resize)(const pg_call *call) {
  const resize_views v = resize_of(call);
  geometry g = {0};
  pg_status status = read_geometry(&g, "resize", call, v.x, v.y);
  if (status == PG_OK) run(&g, 0, v.y->data, v.x->data, call->scratch);
  return status;
}

int64_t PG_CPU(resize_backward_scratch)(const pg_call *call) {
  const resize_backward_views v = resize_backward_of(call);
  geometry g = {0};
  return read_geometry(&g, "resize_backward", call, v.dx, v.dy) ? -1 : scratch_of(&g, 1);
}

pg_status PG_CPU(resize_backward)(const pg_call *call) {
  const resize_backward_views v = resize_backward_of(call);
  geometry g = {0};
  pg_status status = read_geometry(&g, "resize_backward", call, v.dx, v.dy);
  if (status == PG_OK) run(&g, 1, v.dx->data, v.dy->data, call->scratch);
  return status;
}
