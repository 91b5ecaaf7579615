/* The samples that resize reads and their weights: shared by the kernels of every device. */
#ifndef PERIGEE_RESIZE_GEOMETRY_H
#define PERIGEE_RESIZE_GEOMETRY_H

#include <math.h>

#include "cubic.h"

#include "resize/resize.h"

typedef struct geometry {
  int cubic, antialias, corner;
  int64_t outer, inner;       /* x is [outer, skip + h·w, inner]: (B·C, 1) for images, (B, width) for tokens */
  int64_t h, w, h2, w2, skip; /* sizes of x and y */
} geometry;

/* ---- weights ---- */

PG_FUNCTION double filter(const geometry *g, double x) {
  if (g->cubic) return pg_cubic(x, g->antialias ? -0.5 : -0.75);
  x = fabs(x);
  return x < 1 ? 1 - x : 0;
}

/* The inputs that output i of n2 reads, [*first, *last], for an axis of n; *centre is where it lies among them and
 * *stretch the width of the filter. */
PG_FUNCTION void support_of(const geometry *g, int64_t n, int64_t n2, int64_t i, double *centre, double *stretch,
                            int64_t *first, int64_t *last) {
  double scale = (double)n / (double)n2, reach = g->cubic ? 2 : 1;
  *stretch = g->antialias && scale > 1 ? scale : 1;
  if (g->antialias) {
    *centre = scale * ((double)i + 0.5) - 0.5;
    *first = (int64_t)(*centre + 0.5 - reach * *stretch + 0.5);
    *last = (int64_t)(*centre + 0.5 + reach * *stretch + 0.5) - 1;
    if (*first < 0) *first = 0;
    if (*last > n - 1) *last = n - 1;
  } else {
    *centre = g->corner ? (double)((float)i * ((float)n / (float)n2)) : scale * ((double)i + 0.5) - 0.5;
    *first = (int64_t)floor(*centre) - (g->cubic ? 1 : 0);
    *last = *first + (g->cubic ? 3 : 1);
  }
}

PG_FUNCTION int64_t clamp_index(int64_t k, int64_t n) { return k < 0 ? 0 : k >= n ? n - 1 : k; }

/* How many inputs one output reads at most, and the reverse. */
static inline int64_t forward_taps(const geometry *g, int64_t n, int64_t n2) {
  double scale = (double)n / (double)n2, reach = g->cubic ? 2 : 1;
  int64_t taps = (int64_t)ceil(2 * reach * (g->antialias && scale > 1 ? scale : 1)) + (g->antialias ? 1 : 0);
  return taps < n ? taps : n;
}

static inline int64_t backward_taps(const geometry *g, int64_t n, int64_t n2) {
  double scale = (double)n / (double)n2, reach = g->cubic ? 2 : 1;
  double wide = 2 * reach * (g->antialias && scale > 1 ? scale : 1) + 2;
  int64_t taps = (int64_t)ceil(wide / scale) + 2;
  return taps < n2 ? taps : n2;
}

/* ---- bands ---- */

/* A resampling along one axis is a banded matrix: out_i = Σ_k weight[k·n_out + i]·in_(start_i + k), k < taps. Forward
 * and backward build different bands and then run the same code. */
typedef struct band {
  int64_t n_in, n_out, taps;
  int32_t *start; /* [n_out] */
  stat *weight;   /* [taps, n_out], zero past a row's end */
} band;

static inline void bands_of(const geometry *g, int backward, band *down, band *across) {
  down->n_in = backward ? g->h2 : g->h, down->n_out = backward ? g->h : g->h2;
  across->n_in = backward ? g->w2 : g->w, across->n_out = backward ? g->w : g->w2;
  down->taps = backward ? backward_taps(g, g->h, g->h2) : forward_taps(g, g->h, g->h2);
  across->taps = backward ? backward_taps(g, g->w, g->w2) : forward_taps(g, g->w, g->w2);
}


static inline int64_t band_bytes(const band *m) {
  return pg_round_up(m->n_out * (int64_t)sizeof(int32_t), 64) +
         pg_round_up(m->taps * m->n_out * (int64_t)sizeof(stat), 64);
}

/* Lays a band into scratch; returns what comes behind it. */
static inline char *place_band(band *m, char *at) {
  m->start = (int32_t *)(void *)at;
  at += pg_round_up(m->n_out * (int64_t)sizeof(int32_t), 64);
  m->weight = (stat *)(void *)at;
  return at + pg_round_up(m->taps * m->n_out * (int64_t)sizeof(stat), 64);
}

/* ---- arguments ---- */

/* resize_backward has resize's attributes. */
static pg_status read_geometry(geometry *g, const char *name, const pg_call *call, const pg_view *x, const pg_view *y) {
  const resize_ints i = resize_ints_of(call);
  g->cubic = i.mode == 1, g->antialias = i.antialias == 1, g->corner = i.corner == 1;
  g->h = i.height, g->w = i.width, g->h2 = i.to_height, g->w2 = i.to_width;
  g->skip = i.skip;
  int tokens = i.tokens == 1, grid = tokens ? 1 : 2; /* the dimension where the grid begins */
  PG_EXPECT(g->h >= 1 && g->w >= 1 && g->h2 >= 1 && g->w2 >= 1 && g->skip >= 0, "%s: from %lld×%lld to %lld×%lld", name,
            (long long)g->h, (long long)g->w, (long long)g->h2, (long long)g->w2);
  PG_EXPECT(x->ndim == y->ndim && (tokens ? x->ndim >= 2 : x->ndim == 4),
            "%s: x is %s, y is %s; expected [B,C,H,W] or, for tokens, [B,N,..]", name, pg_shape_text(x), pg_shape_text(y));
  int64_t n = tokens ? g->skip + g->h * g->w : g->h, n2 = tokens ? g->h2 * g->w2 : g->h2;
  PG_EXPECT(x->shape[grid] == n && y->shape[grid] == n2 && (tokens || (x->shape[3] == g->w && y->shape[3] == g->w2)),
            "%s: x is %s, y is %s, but the sizes are %lld + %lld×%lld and %lld×%lld", name, pg_shape_text(x),
            pg_shape_text(y), (long long)g->skip, (long long)g->h, (long long)g->w, (long long)g->h2, (long long)g->w2);
  PG_EXPECT(!(g->corner && g->antialias), "%s: corner and antialias exclude each other", name);
  g->outer = tokens ? x->shape[0] : x->shape[0] * x->shape[1];
  g->inner = 1;
  for (int d = 2; tokens && d < x->ndim; d++) g->inner *= x->shape[d];
  return PG_OK;
}

#endif
