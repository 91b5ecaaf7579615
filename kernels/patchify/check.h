/* Checks of the patchify kernels' arguments, on every device (patchify.h). */
#ifndef PERIGEE_PATCHIFY_CHECK_H
#define PERIGEE_PATCHIFY_CHECK_H

#include "patchify/patchify.h"

static pg_status expect_patches(const char *name, const pg_view *images, const pg_view *tokens, int64_t patch,
                                int64_t order) {
  PG_EXPECT(images->ndim == 4 && tokens->ndim == 3, "%s: images are %s, tokens are %s; expected [B,C,H,W] and [B,N,D]", name,
            pg_shape_text(images), pg_shape_text(tokens));
  PG_EXPECT(patch >= 1 && images->shape[2] % patch == 0 && images->shape[3] % patch == 0,
            "%s: images are %s; height and width must be multiples of the patch size %lld", name, pg_shape_text(images),
            (long long)patch);
  int64_t count = images->shape[2] / patch * (images->shape[3] / patch), width = images->shape[1] * patch * patch;
  PG_EXPECT(tokens->shape[0] == images->shape[0] && tokens->shape[1] == count && tokens->shape[2] == width,
            "%s: images are %s, tokens are %s; with patches of %lld they must be [%lld,%lld,%lld]", name,
            pg_shape_text(images), pg_shape_text(tokens), (long long)patch, (long long)images->shape[0], (long long)count,
            (long long)width);
  PG_EXPECT(order == 0 || order == 1, "%s: order %lld; expected 0 (channel, row, column) or 1 (row, column, channel)", name,
            (long long)order);
  return PG_OK;
}

#endif
