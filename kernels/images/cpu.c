#include "cpu.h"
#include "images/check.h"
#include "images/images.h"

pg_status PG_CPU(images)(const pg_call *call) {
  const images_views v = images_of(call);
  pg_status status = expect_images(call);
  if (status) return status;
  const channel_scales s = scales_of(call);
  int64_t channels = v.x->shape[3], height = v.x->shape[1], width = v.x->shape[2];
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < v.x->shape[0] * height; k++) {
    const uint8_t *pixels = (const uint8_t *)v.x->data + k * width * channels;
    for (int64_t c = 0; c < channels; c++) {
      real *line = (real *)v.y->data + ((k / height * channels + c) * height + k % height) * width;
      stat scale = s.scale[c], offset = s.offset[c];
      for (int64_t w = 0; w < width; w++) line[w] = store(scale * (stat)pixels[w * channels + c] + offset);
    }
  }
  return PG_OK;
}

pg_status PG_CPU(images_to_bytes)(const pg_call *call) {
  const images_to_bytes_views v = images_to_bytes_of(call);
  pg_status status = expect_images_to_bytes(call);
  if (status) return status;
  int64_t channels = v.x->shape[1], height = v.x->shape[2], width = v.x->shape[3];
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < v.x->shape[0] * height; k++)
    for (int64_t c = 0; c < channels; c++) {
      const real *line = (const real *)v.x->data + ((k / height * channels + c) * height + k % height) * width;
      uint8_t *pixels = (uint8_t *)v.y->data + k * width * channels + c;
      for (int64_t w = 0; w < width; w++) {
        stat value = 255 * (load(line[w]) + 1) / 2;
        value = value > 0 ? value : 0; /* NaN too */
        pixels[w * channels] = (uint8_t)(value < 255 ? value : 255);
      }
    }
  return PG_OK;
}
