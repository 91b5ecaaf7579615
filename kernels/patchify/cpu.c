#include "cpu.h"
#include "patchify/check.h"
#include "patchify/patchify.h"

/* Moves a row of patches; forward is images -> tokens. */
static void move_row(real *images, real *tokens, const pg_view *v, int64_t patch, int64_t order, int64_t b, int64_t row,
                     int forward) {
  int64_t channels = v->shape[1], height = v->shape[2], width = v->shape[3], columns = width / patch;
  int64_t channel_step = order == 0 ? patch * patch : 1, column_step = order == 0 ? 1 : channels;
  real *token = tokens + (b * (height / patch) + row) * columns * channels * patch * patch;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t p = 0; p < patch; p++) {
      real *line = images + ((b * channels + c) * height + row * patch + p) * width;
      real *first = token + c * channel_step + p * patch * column_step;
      for (int64_t w = 0; w < columns; w++)
        for (int64_t q = 0; q < patch; q++) {
          real *element = first + w * channels * patch * patch + q * column_step;
          if (forward)
            *element = line[w * patch + q];
          else
            line[w * patch + q] = *element;
        }
    }
}

static void move_all(const pg_view *images, const pg_view *tokens, int64_t patch, int64_t order, int forward) {
  int64_t rows = images->shape[2] / patch;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < images->shape[0] * rows; k++)
    move_row(images->data, tokens->data, images, patch, order, k / rows, k % rows, forward);
}

pg_status PG_CPU(patchify)(const pg_call *call) {
  const patchify_views v = patchify_of(call);
  const patchify_ints ints = patchify_ints_of(call);
  pg_status status = expect_patches("patchify", v.images, v.tokens, ints.patch, ints.order);
  if (status) return status;
  move_all(v.images, v.tokens, ints.patch, ints.order, 1);
  return PG_OK;
}

pg_status PG_CPU(unpatchify)(const pg_call *call) {
  const unpatchify_views v = unpatchify_of(call);
  const unpatchify_ints ints = unpatchify_ints_of(call);
  pg_status status = expect_patches("unpatchify", v.images, v.tokens, ints.patch, ints.order);
  if (status) return status;
  move_all(v.images, v.tokens, ints.patch, ints.order, 0);
  return PG_OK;
}
