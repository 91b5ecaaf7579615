/* Checks of the gather kernels' arguments, on every device (gather.h). */
#ifndef PERIGEE_GATHER_CHECK_H
#define PERIGEE_GATHER_CHECK_H

#include "gather/gather.h"

typedef struct picture {
  int64_t outer, inner, k, j;
  const pg_view *index;
  int dim;
  int64_t step; /* the index's stride along dim */
  int rows;     /* the index is the same for all inner elements */
} picture;

/* `whole` is the view with K entries along dim, `part` the one with J. */
static pg_status expect_picture(const char *name, const pg_view *index, int dim, const pg_view *whole,
                                const pg_view *part, picture *p) {
  PG_EXPECT(pg_present(index) && (index->dtype == PG_INT32 || index->dtype == PG_INT64),
            "%s: the index must be int32 or int64", name);
  PG_EXPECT(dim >= 0 && dim < whole->ndim && index->ndim == whole->ndim && pg_same_shape(index, part),
            "%s: along dimension %d, x is %s, index is %s, the other %s", name, dim + 1, pg_shape_text(whole),
            pg_shape_text(index), pg_shape_text(part));
  p->outer = p->inner = 1;
  p->k = whole->shape[dim], p->j = index->shape[dim];
  p->index = index;
  p->dim = dim;
  p->step = index->stride[dim];
  p->rows = 1;
  for (int d = 0; d < whole->ndim; d++) {
    if (d == dim) continue;
    PG_EXPECT(whole->shape[d] == index->shape[d], "%s: x is %s, index is %s; they may differ in dimension %d only",
              name, pg_shape_text(whole), pg_shape_text(index), dim + 1);
    if (d < dim) p->outer *= whole->shape[d];
    else {
      p->inner *= whole->shape[d];
      p->rows &= index->stride[d] == 0 || index->shape[d] == 1;
    }
  }
  return PG_OK;
}

static pg_status expect_gather(const pg_call *call, picture *p) {
  const gather_views v = gather_of(call);
  PG_EXPECT(v.y->dtype == v.x->dtype, "gather: y and x must have one dtype");
  return expect_picture("gather", v.index, (int)gather_ints_of(call).dim, v.x, v.y, p);
}

static pg_status expect_scatter_add(const pg_call *call, picture *p) {
  const scatter_add_views v = scatter_add_of(call);
  PG_EXPECT(!pg_present(v.x) || pg_same_shape(v.x, v.y), "scatter_add: x is %s, y is %s", pg_shape_text(v.x),
            pg_shape_text(v.y));
  return expect_picture("scatter_add", v.index, (int)scatter_add_ints_of(call).dim, v.y, v.source, p);
}

#endif
