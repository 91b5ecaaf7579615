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

static pg_status expect_convolution_3x3(const pg_call *call) {
  const convolution_3x3_views v = convolution_3x3_of(call);
  const int64_t enlarge = convolution_3x3_ints_of(call).enlarge;
  const int64_t *x = v.x->shape, *weight = v.weight->shape, *y = v.y->shape;
  PG_EXPECT(is_images(v.x) && is_images(v.weight) && is_images(v.y) && (enlarge == 1 || enlarge == 2),
            "convolution_3x3: expected x [B,C,H,W], weight [O,C,3,3] and y [B,O,..], none of them empty, and enlarge 1 "
            "or 2, not %lld", (long long)enlarge);
  PG_EXPECT(weight[1] == x[1] && weight[2] == 3 && weight[3] == 3 && y[0] == x[0] && y[1] == weight[0] &&
                y[2] == enlarge * x[2] && y[3] == enlarge * x[3],
            "convolution_3x3: x is %s, weight is %s, y is %s with enlarge %lld", pg_shape_text(v.x),
            pg_shape_text(v.weight), pg_shape_text(v.y), (long long)enlarge);
  PG_EXPECT(!pg_present(v.bias) || pg_numel(v.bias) == weight[0],
            "convolution_3x3: weight is %s, bias is %s; expected [%lld]", pg_shape_text(v.weight),
            pg_shape_text(v.bias), (long long)weight[0]);
  return PG_OK;
}

/* Bytes of the enlarged images at the beginning of scratch, for devices that make them; 0 where they are x. */
static int64_t enlarged_bytes(const pg_call *call) {
  const convolution_3x3_views v = convolution_3x3_of(call);
  const int64_t enlarge = convolution_3x3_ints_of(call).enlarge;
  return enlarge == 1 ? 0 : pg_round_up(pg_numel(v.x) * enlarge * enlarge * pg_dtype_bytes(v.x->dtype), 256);
}

/* The call, which has been checked, as one of `convolution` over the enlarged images. */
static pg_call plain_convolution(const pg_call *call) {
  pg_call plain = *call;
  const convolution_ints window = {.stride = 1, .top = 1, .bottom = 1, .left = 1, .right = 1};
  const int64_t bytes = enlarged_bytes(call);
  if (bytes) {
    pg_view *x = (pg_view *)convolution_of(&plain).x;
    x->data = call->scratch;
    for (int d = 2; d < 4; d++) x->shape[d] *= convolution_3x3_ints_of(call).enlarge;
    x->stride[3] = 1, x->stride[2] = x->shape[3], x->stride[1] = x->shape[2] * x->stride[2];
    x->stride[0] = x->shape[1] * x->stride[1];
    plain.scratch = call->scratch ? (char *)call->scratch + bytes : NULL;
    plain.scratch_bytes -= bytes;
  }
  memcpy(plain.i, &window, sizeof window);
  return plain;
}

#endif
