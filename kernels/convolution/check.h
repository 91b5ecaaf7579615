/* Whether a call keeps to the contracts of convolution.h, for every device alike, and its sizes. */
#ifndef PERIGEE_CONVOLUTION_CHECK_H
#define PERIGEE_CONVOLUTION_CHECK_H

#include "kernel.h"

enum { CONVOLUTION_FORWARD, CONVOLUTION_INPUT, CONVOLUTION_WEIGHT }; /* the three kernels */

typedef struct convolution_size {
  int64_t images, channels, height, width;      /* of x */
  int64_t outputs, kernel_height, kernel_width; /* of weight */
  int64_t rows, columns;                        /* of an image of y */
  int64_t stride, top, bottom, left, right;
} convolution_size;

/* The places of a kernel's views. */
static int convolution_x(int kernel) { return kernel == CONVOLUTION_FORWARD ? 1 : kernel == CONVOLUTION_INPUT ? 0 : 2; }
static int convolution_y(int kernel) { return kernel == CONVOLUTION_FORWARD ? 0 : 1; }
static int convolution_weight(int kernel) { return kernel == CONVOLUTION_WEIGHT ? 0 : 2; }

static const char *convolution_name(int kernel) {
  return kernel == CONVOLUTION_FORWARD ? "convolution"
         : kernel == CONVOLUTION_INPUT ? "convolution_backward_input"
                                       : "convolution_backward_weight";
}

/* Of a call that has been checked. */
static convolution_size convolution_sizes(const pg_call *call, int kernel) {
  const int64_t *x = call->v[convolution_x(kernel)].shape, *weight = call->v[convolution_weight(kernel)].shape;
  const int64_t *y = call->v[convolution_y(kernel)].shape;
  return (convolution_size){x[0], x[1], x[2],       x[3],       weight[0],  weight[2],  weight[3],
                            y[2], y[3], call->i[0], call->i[1], call->i[2], call->i[3], call->i[4]};
}

static pg_status expect_convolution(const pg_call *call, int kernel) {
  const char *name = convolution_name(kernel);
  for (int k = 0; k < 3; k++)
    PG_EXPECT(pg_present(call, k) && call->v[k].ndim == 4 && pg_numel(&call->v[k]) > 0,
              "%s: expected x [B,C,H,W], weight [O,C,kh,kw] and y [B,O,P,Q], none of them empty", name);
  const pg_view *x = &call->v[convolution_x(kernel)], *weight = &call->v[convolution_weight(kernel)];
  const pg_view *y = &call->v[convolution_y(kernel)];
  const convolution_size n = convolution_sizes(call, kernel);
  PG_EXPECT(n.stride >= 1 && n.top >= 0 && n.bottom >= 0 && n.left >= 0 && n.right >= 0,
            "%s: stride %lld, padding %lld, %lld, %lld, %lld", name, (long long)n.stride, (long long)n.top,
            (long long)n.bottom, (long long)n.left, (long long)n.right);
  const int64_t tall = n.height + n.top + n.bottom - n.kernel_height,
                wide = n.width + n.left + n.right - n.kernel_width;
  PG_EXPECT(weight->shape[1] == n.channels && y->shape[0] == n.images && y->shape[1] == n.outputs && tall >= 0 &&
                wide >= 0 && n.rows == tall / n.stride + 1 && n.columns == wide / n.stride + 1,
            "%s: x is %s, weight is %s, y is %s with stride %lld and padding %lld, %lld, %lld, %lld", name,
            pg_shape_text(x), pg_shape_text(weight), pg_shape_text(y), (long long)n.stride, (long long)n.top,
            (long long)n.bottom, (long long)n.left, (long long)n.right);
  if (kernel != CONVOLUTION_FORWARD || !pg_present(call, 3)) return PG_OK;
  PG_EXPECT(pg_numel(&call->v[3]) == n.outputs, "%s: weight is %s, bias is %s; expected [%lld]", name,
            pg_shape_text(weight), pg_shape_text(&call->v[3]), (long long)n.outputs);
  return PG_OK;
}

#endif
