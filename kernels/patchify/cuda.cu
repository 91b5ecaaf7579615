#include "cuda_copy.h"

#include "patchify/check.h"
#include "patchify/patchify.h"

/* Both are copies between two views of six dimensions: image, patch row, patch column, and a patch's channel, row and
 * column in the tokens' order. */
static pg_view six(const pg_view *v, const int64_t shape[6], const int64_t stride[6]) {
  pg_view view = *v;
  view.ndim = 6;
  for (int d = 0; d < 6; d++) view.shape[d] = shape[d], view.stride[d] = stride[d];
  return view;
}

static void both_views(pg_view *images, pg_view *tokens, const pg_view *image, const pg_view *token, int64_t p,
                       int64_t order) {
  int64_t b = image->shape[0], c = image->shape[1], h = image->shape[2], w = image->shape[3], width = c * p * p;
  const int64_t shapes[2][6] = {{b, h / p, w / p, c, p, p}, {b, h / p, w / p, p, p, c}};
  const int64_t strides[2][6] = {{c * h * w, p * w, p, h * w, w, 1}, {c * h * w, p * w, p, w, 1, h * w}};
  const int64_t contiguous[2][6] = {{h / p * (w / p) * width, w / p * width, width, p * p, p, 1},
                                    {h / p * (w / p) * width, w / p * width, width, p * c, c, 1}};
  *images = six(image, shapes[order], strides[order]);
  *tokens = six(token, shapes[order], contiguous[order]);
}

pg_status PG_CUDA(patchify)(const pg_call *call) {
  const patchify_views v = patchify_of(call);
  const patchify_ints ints = patchify_ints_of(call);
  pg_status status = expect_patches("patchify", v.images, v.tokens, ints.patch, ints.order);
  if (status) return status;
  pg_view images, tokens;
  both_views(&images, &tokens, v.images, v.tokens, ints.patch, ints.order);
  pg_copy_views(&tokens, &images, call->stream);
  return pg_launched("patchify");
}

pg_status PG_CUDA(unpatchify)(const pg_call *call) {
  const unpatchify_views v = unpatchify_of(call);
  const unpatchify_ints ints = unpatchify_ints_of(call);
  pg_status status = expect_patches("unpatchify", v.images, v.tokens, ints.patch, ints.order);
  if (status) return status;
  pg_view images, tokens;
  both_views(&images, &tokens, v.images, v.tokens, ints.patch, ints.order);
  pg_copy_views(&images, &tokens, call->stream);
  return pg_launched("unpatchify");
}
