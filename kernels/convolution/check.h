/* Whether a call keeps to the contracts of convolution.h, for every device alike, and its sizes. */
#ifndef PERIGEE_CONVOLUTION_CHECK_H
#define PERIGEE_CONVOLUTION_CHECK_H

#include "convolution/convolution.h"

enum { CONVOLUTION_FORWARD, CONVOLUTION_INPUT, CONVOLUTION_WEIGHT }; /* the three kernels */

typedef struct convolution_size {
  int64_t images, channels, height, width;      /* of x */
  int64_t outputs, kernel_height, kernel_width; /* of weight */
  int64_t rows, columns;                        /* of an image of y */
  int64_t stride, top, bottom, left, right;
} convolution_size;

/* The tensors of a product, or their gradients, wherever a kernel's views have them. */
typedef struct convolution_tensors {
  const pg_view *x, *weight, *y, *bias; /* bias: forward only; may be absent */
} convolution_tensors;

static convolution_tensors convolution_tensors_of(const pg_call *call, int kernel) {
  const convolution_views forward = convolution_of(call);
  const convolution_backward_input_views input = convolution_backward_input_of(call);
  const convolution_backward_weight_views weight = convolution_backward_weight_of(call);
  switch (kernel) {
  case CONVOLUTION_FORWARD: return (convolution_tensors){forward.x, forward.weight, forward.y, forward.bias};
  case CONVOLUTION_INPUT: return (convolution_tensors){input.dx, input.weight, input.dy, &pg_absent_view};
  default: return (convolution_tensors){weight.x, weight.dweight, weight.dy, &pg_absent_view};
  }
}

static const char *convolution_name(int kernel) {
  return kernel == CONVOLUTION_FORWARD ? "convolution"
         : kernel == CONVOLUTION_INPUT ? "convolution_backward_input"
                                       : "convolution_backward_weight";
}

/* Of a call that has been checked; the three kernels have the same attributes. */
static convolution_size convolution_sizes(const pg_call *call, int kernel) {
  const convolution_tensors t = convolution_tensors_of(call, kernel);
  const convolution_ints i = convolution_ints_of(call);
  const int64_t *x = t.x->shape, *weight = t.weight->shape, *y = t.y->shape;
  return (convolution_size){x[0], x[1], x[2],     x[3],  weight[0], weight[2], weight[3],
                            y[2], y[3], i.stride, i.top, i.bottom,  i.left,    i.right};
}

static int is_images(const pg_view *v) { return v->ndim == 4 && pg_numel(v) > 0; }

static pg_status expect_convolution(const pg_call *call, int kernel) {
  const convolution_tensors t = convolution_tensors_of(call, kernel);
  const char *name = convolution_name(kernel);
  PG_EXPECT(is_images(t.x) && is_images(t.weight) && is_images(t.y),
            "%s: expected x [B,C,H,W], weight [O,C,kh,kw] and y [B,O,P,Q], none of them empty", name);
  const convolution_size n = convolution_sizes(call, kernel);
  PG_EXPECT(n.stride >= 1 && n.top >= 0 && n.bottom >= 0 && n.left >= 0 && n.right >= 0,
            "%s: stride %lld, padding %lld, %lld, %lld, %lld", name, (long long)n.stride, (long long)n.top,
            (long long)n.bottom, (long long)n.left, (long long)n.right);
  const int64_t tall = n.height + n.top + n.bottom - n.kernel_height,
                wide = n.width + n.left + n.right - n.kernel_width;
  PG_EXPECT(t.weight->shape[1] == n.channels && t.y->shape[0] == n.images && t.y->shape[1] == n.outputs && tall >= 0 &&
                wide >= 0 && n.rows == tall / n.stride + 1 && n.columns == wide / n.stride + 1,
            "%s: x is %s, weight is %s, y is %s with stride %lld and padding %lld, %lld, %lld, %lld", name,
            pg_shape_text(t.x), pg_shape_text(t.weight), pg_shape_text(t.y), (long long)n.stride, (long long)n.top,
            (long long)n.bottom, (long long)n.left, (long long)n.right);
  PG_EXPECT(!pg_present(t.bias) || pg_numel(t.bias) == n.outputs, "%s: weight is %s, bias is %s; expected [%lld]", name,
            pg_shape_text(t.weight), pg_shape_text(t.bias), (long long)n.outputs);
  return PG_OK;
}

#endif
