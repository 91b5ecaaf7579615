#include "cuda_loop.h"

#include "images/check.h"
#include "images/images.h"

/* N neighbouring pixels a thread; `units` are of N pixels. The bytes of a pixel's C channels lie side by side. */
template <int C, int N>
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    images_kernel(real *y, const uint8_t *x, channel_scales s, int64_t units, int64_t area) {
  PG_GRID_STRIDE(unit, units) {
    int64_t pixel = unit * N, image = quotient(pixel, area), place = pixel - image * area;
    uint8_t bytes[C * N];
    for (int part = 0; part < C; part++) read_from<N>(bytes + part * N, x + pixel * C + part * N);
    for (int c = 0; c < C; c++) {
      stat values[N];
      for (int k = 0; k < N; k++) values[k] = s.scale[c] * (stat)bytes[k * C + c] + s.offset[c];
      store_some<N>(y + (image * C + c) * area + place, values);
    }
  }
}

template <int C>
static void launch_images(real *y, const uint8_t *x, const channel_scales &s, int64_t pixels, int64_t area,
                          void *stream) {
  bool vectors = pg_vectorisable(y, area, area) && reinterpret_cast<uintptr_t>(x) % PG_VECTOR == 0;
  int64_t units = vectors ? pixels / PG_VECTOR : pixels;
  auto kernel = vectors ? images_kernel<C, PG_VECTOR> : images_kernel<C, 1>;
  LAUNCH(kernel, pg_stride_blocks(units, PG_EACH_THREADS), PG_EACH_THREADS, 0, stream, y, x, s, units, area);
}

pg_status PG_CUDA(images)(const pg_call *call) {
  const images_views v = images_of(call);
  pg_status status = expect_images(call);
  if (status) return status;
  real *y = pg_data<real>(v.y);
  const uint8_t *x = pg_data<uint8_t>(v.x);
  const int64_t *shape = v.x->shape;
  const channel_scales s = scales_of(call);
  int64_t area = shape[1] * shape[2], pixels = shape[0] * area;
  switch (shape[3]) {
  case 1: launch_images<1>(y, x, s, pixels, area, call->stream); break;
  case 2: launch_images<2>(y, x, s, pixels, area, call->stream); break;
  case 3: launch_images<3>(y, x, s, pixels, area, call->stream); break;
  case 4: launch_images<4>(y, x, s, pixels, area, call->stream); break;
  default: break; /* no channel */
  }
  return pg_launched("images");
}

/* A pixel a thread. */
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    bytes_kernel(uint8_t *y, const real *x, int64_t channels, int64_t pixels, int64_t area) {
  PG_GRID_STRIDE(pixel, pixels) {
    int64_t image = quotient(pixel, area), place = pixel - image * area;
    for (int64_t c = 0; c < channels; c++) {
      stat value = 255 * (load(x[(image * channels + c) * area + place]) + 1) / 2;
      value = value > 0 ? value : 0; /* NaN too */
      y[pixel * channels + c] = (uint8_t)(value < 255 ? value : 255);
    }
  }
}

pg_status PG_CUDA(images_to_bytes)(const pg_call *call) {
  const images_to_bytes_views v = images_to_bytes_of(call);
  pg_status status = expect_images_to_bytes(call);
  if (status) return status;
  const int64_t *shape = v.x->shape;
  int64_t area = shape[2] * shape[3], pixels = shape[0] * area;
  LAUNCH(bytes_kernel, pg_stride_blocks(pixels, PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream,
         pg_data<uint8_t>(v.y), pg_data<real>(v.x), shape[1], pixels, area);
  return pg_launched("images_to_bytes");
}
