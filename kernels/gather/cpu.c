/* Gather and scatter-add on the CPU. Both see [outer, K or J, inner]; threads take slices of the outer and inner ones,
 * so that the additions to one place are made by one thread, in order. */
#include <omp.h>

#include "cpu.h"

#include "gather/check.h"
#include "gather/gather.h"

enum { PIECE = 64 /* inner elements of a slice */, PARALLEL = 32768 /* elements */ };

/* Where the index's entry lies that belongs to element `linear` of its dimensions [from, to). */
static int64_t index_offset(const pg_view *index, int from, int to, int64_t linear) {
  int64_t offset = 0;
  for (int d = to - 1; d >= from; d--) {
    offset += linear % index->shape[d] * index->stride[d];
    linear /= index->shape[d];
  }
  return offset;
}

static inline int64_t index_at(const pg_view *index, int64_t offset) {
  return index->dtype == PG_INT32 ? ((const int32_t *)index->data)[offset] : ((const int64_t *)index->data)[offset];
}

/* An index out of bounds; nothing has been written yet. */
static pg_status check_bounds(const char *name, const picture *p) {
  int64_t inner = p->rows ? (p->inner > 0) : p->inner;
  for (int64_t o = 0; o < p->outer; o++) {
    int64_t start = index_offset(p->index, 0, p->dim, o);
    for (int64_t i = 0; i < inner; i++) {
      int64_t at = start + index_offset(p->index, p->dim + 1, p->index->ndim, i);
      for (int64_t j = 0; j < p->j; j++) {
        int64_t found = index_at(p->index, at + j * p->step);
        PG_EXPECT(found >= 0 && found < p->k,
                  "%s: index %lld at place %lld of dimension %d; the tensor has %lld entries there", name,
                  (long long)found, (long long)j + 1, p->dim + 1, (long long)p->k);
      }
    }
  }
  return PG_OK;
}

pg_status PG_CPU(gather)(const pg_call *call) {
  const gather_views v = gather_of(call);
  picture p = {0};
  pg_status status = expect_gather(call, &p);
  if (status == PG_OK) status = check_bounds("gather", &p);
  if (status) return status;
  int64_t bytes = pg_dtype_bytes(v.x->dtype), row = p.inner * bytes;
#pragma omp parallel for schedule(static) collapse(2) if (p.outer * p.j * p.inner > PARALLEL)
  for (int64_t o = 0; o < p.outer; o++) {
    for (int64_t j = 0; j < p.j; j++) {
      int64_t at = index_offset(p.index, 0, p.dim, o) + j * p.step;
      const char *from = (const char *)v.x->data + o * p.k * row;
      char *to = (char *)v.y->data + (o * p.j + j) * row;
      if (p.rows) {
        memcpy(to, from + index_at(p.index, at) * row, (size_t)row);
        continue;
      }
      for (int64_t i = 0; i < p.inner; i++) {
        int64_t k = index_at(p.index, at + index_offset(p.index, p.dim + 1, p.index->ndim, i));
        memcpy(to + i * bytes, from + k * row + i * bytes, (size_t)bytes);
      }
    }
  }
  return PG_OK;
}

/* ---- scatter_add ---- */

/* Adds the sources of the inner elements [start, start + n) to sum, whose rows lie `pitch` apart. */
static inline void add_sources(const picture *p, stat *sum, int64_t pitch, const real *source, int64_t index_start,
                               int64_t start, int64_t n) {
  for (int64_t j = 0; j < p->j; j++) {
    const real *from = source + j * p->inner + start;
    int64_t at = index_start + j * p->step;
    if (p->rows) {
      stat *to = sum + index_at(p->index, at) * pitch;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) to[i] += load(from[i]);
    } else {
      for (int64_t i = 0; i < n; i++) {
        int64_t k = index_at(p->index, at + index_offset(p->index, p->dim + 1, p->index->ndim, start + i));
        sum[k * pitch + i] += load(from[i]);
      }
    }
  }
}

int64_t PG_CPU(scatter_add_scratch)(const pg_call *call) {
  picture p = {0};
  if (expect_scatter_add(call, &p)) return -1;
  return pg_kernel_threads() * p.k * PIECE * (int64_t)sizeof(stat);
}

pg_status PG_CPU(scatter_add)(const pg_call *call) {
  const scatter_add_views v = scatter_add_of(call);
  picture p = {0};
  pg_status status = expect_scatter_add(call, &p);
  if (status == PG_OK) status = check_bounds("scatter_add", &p);
  if (status) return status;
  real *out = v.y->data;
  const real *x = v.x->data, *source = v.source->data;
  int64_t pieces = pg_pieces(p.inner, PIECE);
#pragma omp parallel if (p.outer * (p.j + p.k) * p.inner > PARALLEL)
  {
    stat *sum = (stat *)call->scratch + omp_get_thread_num() * p.k * PIECE;
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < p.outer * pieces; unit++) {
      int64_t o = unit / pieces, start = unit % pieces * PIECE, n = p.inner - start < PIECE ? p.inner - start : PIECE;
      int64_t first = o * p.k * p.inner + start;
      for (int64_t k = 0; k < p.k; k++)
        for (int64_t i = 0; i < n; i++) sum[k * n + i] = x ? load(x[first + k * p.inner + i]) : 0;
      add_sources(&p, sum, n, source + o * p.j * p.inner, index_offset(p.index, 0, p.dim, o), start, n);
      for (int64_t k = 0; k < p.k; k++)
        for (int64_t i = 0; i < n; i++) out[first + k * p.inner + i] = store(sum[k * n + i]);
    }
  }
  return PG_OK;
}
