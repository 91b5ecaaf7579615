/* Scaling pictures while they are loaded: separable cubic convolution (Keys 1981, a = -1/2), widened by the scale
 * when shrinking so that every source pixel counts (antialiased), half-pixel centres. */
#include <math.h>
#include <string.h>

#include "cubic.h"
#include "files.h"

/* For each output coordinate the source pixels first ... first + taps - 1 and their weights, which sum to 1. */
typedef struct axis {
  int64_t *first; /* [size] */
  float *weight;  /* [size,taps] */
  int64_t taps;
} axis;

static double cubic(double x) { return pg_cubic(x, -0.5); }

static void axis_free(axis *a) {
  pg_host_free(a->first);
  pg_host_free(a->weight);
}

/* Output pixel k of `size` looks at source coordinate (k + start + 1/2)·scale, scale = source pixels an output pixel. */
static bool axis_make(axis *a, int64_t source, double scale, double start, int64_t size) {
  double wide = scale > 1 ? scale : 1, reach = 2 * wide;
  a->taps = (int64_t)ceil(reach) * 2 + 1;
  if (a->taps > source) a->taps = source;
  a->first = pg_host_calloc((size_t)size, sizeof *a->first);
  a->weight = pg_host_calloc((size_t)(size * a->taps), sizeof *a->weight);
  if (!a->first || !a->weight) return false;
  for (int64_t k = 0; k < size; k++) {
    double centre = ((double)k + start + 0.5) * scale, sum = 0;
    int64_t first = (int64_t)floor(centre - reach);
    if (first > source - a->taps) first = source - a->taps;
    if (first < 0) first = 0;
    a->first[k] = first;
    float *weight = a->weight + k * a->taps;
    for (int64_t j = 0; j < a->taps; j++) sum += cubic(((double)(first + j) + 0.5 - centre) / wide);
    for (int64_t j = 0; j < a->taps; j++) weight[j] = (float)(cubic(((double)(first + j) + 0.5 - centre) / wide) / sum);
  }
  return true;
}

/* One source row [source,3] to [width,3]. */
static void scale_row(const axis *a, const uint8_t *row, float *out, int64_t width) {
  for (int64_t x = 0; x < width; x++) {
    const uint8_t *from = row + 3 * a->first[x];
    const float *weight = a->weight + x * a->taps;
    float sum[3] = {0, 0, 0};
    for (int64_t j = 0; j < a->taps; j++)
      for (int c = 0; c < 3; c++) sum[c] += weight[j] * (float)from[3 * j + c];
    memcpy(out + 3 * x, sum, sizeof sum);
  }
}

static void scale_columns(const axis *a, const float *rows, uint8_t *out, int64_t height, int64_t width) {
  for (int64_t y = 0; y < height; y++)
    for (int64_t x = 0; x < 3 * width; x++) {
      const float *from = rows + a->first[y] * 3 * width + x, *weight = a->weight + y * a->taps;
      float sum = 0.5f;
      for (int64_t j = 0; j < a->taps; j++) sum += weight[j] * from[j * 3 * width];
      out[y * 3 * width + x] = sum <= 0 ? 0 : sum >= 255 ? 255 : (uint8_t)sum;
    }
}

pg_status pg_picture_fit(const pg_picture *p, uint8_t *out, int64_t height, int64_t width) {
  double down = (double)p->height / (double)height, across = (double)p->width / (double)width;
  double scale = down < across ? down : across;
  axis rows = {0}, columns = {0};
  float *scaled = pg_host_calloc((size_t)(p->height * width), 3 * sizeof *scaled); /* [p->height,width,3] */
  bool made = scaled && axis_make(&rows, p->height, scale, ((double)p->height / scale - (double)height) / 2, height) &&
              axis_make(&columns, p->width, scale, ((double)p->width / scale - (double)width) / 2, width);
  if (made) {
    for (int64_t y = 0; y < p->height; y++)
      scale_row(&columns, p->pixels + y * 3 * p->width, scaled + y * 3 * width, width);
    scale_columns(&rows, scaled, out, height, width);
  }
  axis_free(&rows);
  axis_free(&columns);
  pg_host_free(scaled);
  return made ? PG_OK : pg_error(PG_ERROR_MEMORY, "picture: out of memory while scaling");
}
