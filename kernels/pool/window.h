/* The windows of pool and whether a call keeps to the contracts of pool.h, on every device. */
#ifndef PERIGEE_POOL_WINDOW_H
#define PERIGEE_POOL_WINDOW_H

#include "pool/pool.h"

typedef struct pooling {
  int mean;
  int64_t planes, height, width; /* of x */
  int64_t rows, columns;         /* of a plane of y */
  int64_t size, stride, padding;
} pooling;

/* What window `p` of an axis of `length` covers, [*first, *end). */
PG_FUNCTION void window_of(const pooling *n, int64_t p, int64_t length, int64_t *first, int64_t *end) {
  const int64_t from = p * n->stride - n->padding, to = from + n->size;
  *first = from < 0 ? 0 : from;
  *end = to > length ? length : to;
}

/* The windows of an axis of `count` that cover place `k`, [*first, *end). */
PG_FUNCTION void windows_over(const pooling *n, int64_t k, int64_t count, int64_t *first, int64_t *end) {
  const int64_t late = k + n->padding - n->size; /* the last place before which a window ends too early */
  *first = late < 0 ? 0 : late / n->stride + 1;
  *end = (k + n->padding) / n->stride + 1;
  if (*end > count) *end = count;
}

/* The larger of two, NaN being larger than all numbers; of equal ones the first. */
PG_FUNCTION int is_larger(stat x, stat than) { return x > than || (x != x && than == than); }

/* The number of a plane's window (p, q). */
PG_FUNCTION stat pool_window(const pooling *n, const real *plane, int64_t p, int64_t q) {
  int64_t top, bottom, left, right;
  window_of(n, p, n->height, &top, &bottom);
  window_of(n, q, n->width, &left, &right);
  stat result = n->mean ? 0 : load(plane[top * n->width + left]);
  for (int64_t i = top; i < bottom; i++)
    for (int64_t j = left; j < right; j++) {
      const stat x = load(plane[i * n->width + j]);
      if (n->mean) result += x;
      else if (is_larger(x, result)) result = x;
    }
  return n->mean ? result / (stat)((bottom - top) * (right - left)) : result;
}

/* Where the largest element of a plane's window (p, q) lies in the plane. */
PG_FUNCTION int64_t place_of_largest(const pooling *n, const real *plane, int64_t p, int64_t q) {
  int64_t top, bottom, left, right;
  window_of(n, p, n->height, &top, &bottom);
  window_of(n, q, n->width, &left, &right);
  int64_t place = top * n->width + left;
  for (int64_t i = top; i < bottom; i++)
    for (int64_t j = left; j < right; j++)
      if (is_larger(load(plane[i * n->width + j]), load(plane[place]))) place = i * n->width + j;
  return place;
}

/* The gradient of element (i, j) of a plane; `plane` is x's, for the largest. */
PG_FUNCTION stat pool_gradient(const pooling *n, const real *dy, const real *plane, int64_t i, int64_t j) {
  int64_t first_row, end_row, first_column, end_column;
  windows_over(n, i, n->rows, &first_row, &end_row);
  windows_over(n, j, n->columns, &first_column, &end_column);
  stat sum = 0;
  for (int64_t p = first_row; p < end_row; p++)
    for (int64_t q = first_column; q < end_column; q++) {
      const stat d = load(dy[p * n->columns + q]);
      if (n->mean) {
        int64_t top, bottom, left, right;
        window_of(n, p, n->height, &top, &bottom);
        window_of(n, q, n->width, &left, &right);
        sum += d / (stat)((bottom - top) * (right - left));
      } else if (place_of_largest(n, plane, p, q) == i * n->width + j) {
        sum += d;
      }
    }
  return sum;
}

static pg_status read_pooling(pooling *n, const char *name, const pg_call *call, const pg_view *x, const pg_view *y) {
  const pool_ints i = pool_ints_of(call);
  PG_EXPECT(x->ndim == 4 && y->ndim == 4 && pg_numel(x) > 0 && pg_contiguous(x) && pg_contiguous(y),
            "%s: x is %s, y is %s; expected [B,C,H,W] and [B,C,P,Q], none of them empty", name, pg_shape_text(x),
            pg_shape_text(y));
  n->mean = i.mean == 1, n->size = i.size, n->stride = i.stride, n->padding = i.padding;
  n->planes = x->shape[0] * x->shape[1], n->height = x->shape[2], n->width = x->shape[3];
  n->rows = y->shape[2], n->columns = y->shape[3];
  const int64_t tall = n->height + 2 * n->padding - n->size, broad = n->width + 2 * n->padding - n->size;
  PG_EXPECT(n->size >= 1 && n->stride >= 1 && n->padding >= 0 && 2 * n->padding <= n->size && tall >= 0 && broad >= 0,
            "%s: x is %s, size %lld, stride %lld, padding %lld", name, pg_shape_text(x), (long long)n->size,
            (long long)n->stride, (long long)n->padding);
  PG_EXPECT(y->shape[0] == x->shape[0] && y->shape[1] == x->shape[1] && n->rows == tall / n->stride + 1 &&
                n->columns == broad / n->stride + 1,
            "%s: x is %s, y is %s with size %lld, stride %lld and padding %lld", name, pg_shape_text(x),
            pg_shape_text(y), (long long)n->size, (long long)n->stride, (long long)n->padding);
  return PG_OK;
}

/* pool_backward has pool's attributes. */
static pg_status read_backward(pooling *n, const pg_call *call) {
  const pool_backward_views v = pool_backward_of(call);
  pg_status status = read_pooling(n, "pool_backward", call, v.dx, v.dy);
  if (status) return status;
  PG_EXPECT(n->mean || (pg_present(v.x) && pg_same_shape(v.x, v.dx)), "pool_backward: x is %s, dx is %s",
            pg_shape_text(v.x), pg_shape_text(v.dx));
  return PG_OK;
}

#endif
