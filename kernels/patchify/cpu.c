#include "cpu.h"
#include "patchify/patchify.h"

static pg_status expect(const char *name, const pg_view *images, const pg_view *tokens, int64_t patch, int64_t order) {
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
  pg_status status = expect("patchify", &call->v[1], &call->v[0], call->i[0], call->i[1]);
  if (status) return status;
  move_all(&call->v[1], &call->v[0], call->i[0], call->i[1], 1);
  return PG_OK;
}

pg_status PG_CPU(unpatchify)(const pg_call *call) {
  pg_status status = expect("unpatchify", &call->v[0], &call->v[1], call->i[0], call->i[1]);
  if (status) return status;
  move_all(&call->v[0], &call->v[1], call->i[0], call->i[1], 0);
  return PG_OK;
}
