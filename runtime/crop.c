/* The centre crop of ADM (guided diffusion), which REPA, SiT and DiT share, with Pillow's arithmetic, so that the
 * bytes are equal: halved by a box filter while the shorter side is at least twice the crop's, scaled by cubic
 * convolution until it is the crop's, cut out at the centre. Pillow up to version 12 scales rows, then columns (later
 * ones take tall pictures in the other order, which changes some last bits), each in 8 bits with weights of 22 binary
 * digits. */
#include <math.h>
#include <string.h>

#include "cubic.h"
#include "files.h"

enum { DIGITS = 32 - 8 - 2 };

typedef struct filter {
  double support; /* half its width, in source pixels where nothing shrinks */
  double (*at)(double x);
} filter;

static double box_at(double x) { return x > -0.5 && x <= 0.5; }
static double cubic_at(double x) { return pg_cubic(x, -0.5); }

static const filter box = {0.5, box_at}, cubic = {2, cubic_at};

/* For each of `n` output coordinates the source pixels first ... first + count - 1 and their weights. */
typedef struct axis {
  int64_t *first, *count; /* [n] */
  int32_t *weight;        /* [n,taps] */
  int64_t n, taps;
} axis;

static void axis_free(axis *a) {
  pg_host_free(a->first);
  pg_host_free(a->count);
  pg_host_free(a->weight);
}

/* The weights of the k-th coordinate, that of output pixel `pixel`, times 2^DIGITS. */
static void weigh(axis *a, const filter *f, int64_t source, double scale, int64_t k, int64_t pixel) {
  double wide = scale < 1 ? 1 : scale, support = f->support * wide, centre = ((double)pixel + 0.5) * scale, sum = 0;
  int64_t first = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
  if (first < 0) first = 0;
  if (end > source) end = source;
  a->first[k] = first;
  a->count[k] = end - first;
  double inverse = 1 / wide, weights[a->taps];
  for (int64_t j = 0; j < a->count[k]; j++) {
    weights[j] = f->at(((double)(j + first) - centre + 0.5) * inverse);
    sum += weights[j];
  }
  for (int64_t j = 0; j < a->count[k]; j++) {
    double weight = (sum != 0 ? weights[j] / sum : weights[j]) * (1 << DIGITS);
    a->weight[k * a->taps + j] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
  }
}

/* Of the `source` pixels scaled to `size` those from `start` on, `n` of them. */
static bool axis_make(axis *a, const filter *f, int64_t source, int64_t size, int64_t start, int64_t n) {
  double scale = (double)source / (double)size;
  a->n = n;
  a->taps = (int64_t)ceil(f->support * (scale < 1 ? 1 : scale)) * 2 + 1;
  a->first = pg_host_calloc((size_t)n, sizeof *a->first);
  a->count = pg_host_calloc((size_t)n, sizeof *a->count);
  a->weight = pg_host_calloc((size_t)(n * a->taps), sizeof *a->weight);
  if (!a->first || !a->count || !a->weight) return false;
  for (int64_t k = 0; k < n; k++) weigh(a, f, source, scale, k, start + k);
  return true;
}

static uint8_t rounded(int32_t sum) {
  int32_t value = sum >> DIGITS;
  return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static void scale_rows(const axis *a, const pg_picture *p, pg_picture *out) {
  for (int64_t y = 0; y < out->height; y++)
    for (int64_t x = 0; x < out->width; x++) {
      const uint8_t *from = p->pixels + (y * p->width + a->first[x]) * 3;
      const int32_t *weight = a->weight + x * a->taps;
      int32_t sum[3] = {1 << (DIGITS - 1), 1 << (DIGITS - 1), 1 << (DIGITS - 1)};
      for (int64_t j = 0; j < a->count[x]; j++)
        for (int c = 0; c < 3; c++) sum[c] += weight[j] * from[3 * j + c];
      for (int c = 0; c < 3; c++) out->pixels[(y * out->width + x) * 3 + c] = rounded(sum[c]);
    }
}

static void scale_columns(const axis *a, const pg_picture *p, pg_picture *out) {
  int64_t row = 3 * p->width;
  for (int64_t y = 0; y < out->height; y++) {
    const uint8_t *from = p->pixels + a->first[y] * row;
    const int32_t *weight = a->weight + y * a->taps;
    for (int64_t x = 0; x < row; x++) {
      int32_t sum = 1 << (DIGITS - 1);
      for (int64_t j = 0; j < a->count[y]; j++) sum += weight[j] * from[j * row + x];
      out->pixels[y * row + x] = rounded(sum);
    }
  }
}

/* Replaces *p, whose pixels are freed if it `owns` them, by a picture of another size along one axis: of `size` pixels
 * those from `start` on, `n` of them. */
static pg_status scale_axis(pg_picture *p, bool *owns, const filter *f, bool across, int64_t size, int64_t start,
                            int64_t n) {
  int64_t source = across ? p->width : p->height;
  if (source == size && n == size) return PG_OK;
  axis a = {0};
  pg_picture scaled = {.height = across ? p->height : n, .width = across ? n : p->width};
  scaled.pixels = pg_host_calloc((size_t)(scaled.height * scaled.width), 3);
  bool made = scaled.pixels && axis_make(&a, f, source, size, start, n);
  if (made) (across ? scale_rows : scale_columns)(&a, p, &scaled);
  axis_free(&a);
  if (!made) {
    pg_picture_free(&scaled);
    return pg_error(PG_ERROR_MEMORY, "picture: out of memory while scaling");
  }
  if (*owns) pg_picture_free(p);
  *p = scaled;
  *owns = true;
  return PG_OK;
}

static int64_t shorter(const pg_picture *p) { return p->height < p->width ? p->height : p->width; }

static pg_status halve(pg_picture *p, bool *owns) {
  int64_t height = p->height / 2, width = p->width / 2;
  pg_status status = scale_axis(p, owns, &box, true, width, 0, width);
  return status ? status : scale_axis(p, owns, &box, false, height, 0, height);
}

/* Only the pixels that the crop keeps are computed. */
pg_status pg_picture_crop(const pg_picture *given, uint8_t *out, int64_t side) {
  pg_picture p = *given;
  bool owns = false;
  pg_status status = PG_OK;
  while (!status && shorter(&p) >= 2 * side) status = halve(&p, &owns);
  double scale = (double)side / (double)shorter(&p);
  int64_t height = (int64_t)nearbyint((double)p.height * scale), width = (int64_t)nearbyint((double)p.width * scale);
  if (!status) status = scale_axis(&p, &owns, &cubic, true, width, (width - side) / 2, side);
  if (!status) status = scale_axis(&p, &owns, &cubic, false, height, (height - side) / 2, side);
  if (!status) memcpy(out, p.pixels, (size_t)(3 * side * side));
  if (owns) pg_picture_free(&p);
  return status;
}
