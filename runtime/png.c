/* PNG files through libpng: any kind in, 8-bit RGB out; 8-bit RGB or grey written. */
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "files.h"

/* The state of libpng's callbacks. It lives in the caller of the function that calls setjmp. */
typedef struct png_job {
  const char *path;
  const char *bytes; /* reading: the file's, */
  int64_t size, at;  /* how many, and how many have been read */
  pg_writer *writer; /* writing */
  pg_status status;  /* of the first failure; its message is pg_last_error() */
} png_job;

static void on_error(png_structp png, png_const_charp what) {
  png_job *job = png_get_error_ptr(png);
  if (!job->status) job->status = pg_error(PG_ERROR_FORMAT, "%s: not a readable PNG: %s", job->path, what);
  longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp what) {
  (void)png;
  (void)what;
}

static pg_status out_of_memory(png_job *job) {
  return job->status = pg_error(PG_ERROR_MEMORY, "%s: out of memory", job->path);
}

static png_voidp png_allocate(png_structp png, png_alloc_size_t bytes) {
  void *p = pg_host_calloc(1, bytes);
  if (!p) out_of_memory(png_get_mem_ptr(png));
  return p;
}

static void png_release(png_structp png, png_voidp p) {
  (void)png;
  pg_host_free(p);
}

/* ---- reading ---- */

static void read_bytes(png_structp png, png_bytep to, size_t bytes) {
  png_job *job = png_get_io_ptr(png);
  if ((int64_t)bytes > job->size - job->at) png_error(png, "the file ends too early");
  memcpy(to, job->bytes + job->at, bytes);
  job->at += (int64_t)bytes;
}

/* Asks libpng for 8-bit RGB whatever the file holds. */
static void to_rgb(png_structp png, png_infop info) {
  png_byte colour = png_get_color_type(png, info);
  png_set_scale_16(png);
  png_set_expand(png);
  png_set_strip_alpha(png);
  if (!(colour & PNG_COLOR_MASK_COLOR)) png_set_gray_to_rgb(png);
}

static void decode(png_structp png, png_infop info, png_job *job, pg_picture *out) {
  if (setjmp(png_jmpbuf(png))) return;
  png_set_read_fn(png, job, read_bytes);
  png_set_user_limits(png, PG_PICTURE_MAX_SIDE, PG_PICTURE_MAX_SIDE);
  png_set_chunk_cache_max(png, 64);
  png_set_chunk_malloc_max(png, 8 << 20);
  png_read_info(png, info);
  to_rgb(png, info);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  job->status = pg_picture_room(out, job->path, png_get_image_height(png, info), png_get_image_width(png, info));
  if (job->status) return;
  if (png_get_rowbytes(png, info) != 3 * (size_t)out->width) png_error(png, "it does not decode to 8-bit RGB");
  for (int pass = 0; pass < passes; pass++)
    for (int64_t y = 0; y < out->height; y++) png_read_row(png, out->pixels + y * 3 * out->width, NULL);
  png_read_end(png, NULL);
}

pg_status pg_png_decode(pg_picture *out, const char *name, const void *bytes, int64_t size) {
  png_job made = {.path = name, .bytes = bytes, .size = size}, *job = &made;
  png_infop info = NULL;
  png_structp png =
      png_create_read_struct_2(PNG_LIBPNG_VER_STRING, job, on_error, on_warning, job, png_allocate, png_release);
  if (png) info = png_create_info_struct(png);
  if (info) decode(png, info, job, out);
  else out_of_memory(job);
  png_destroy_read_struct(&png, &info, NULL);
  return job->status;
}

/* ---- writing ---- */

static void write_bytes(png_structp png, png_bytep from, size_t bytes) {
  png_job *job = png_get_io_ptr(png);
  job->status = pg_writer_write(job->writer, from, (int64_t)bytes);
  if (job->status) png_error(png, "write");
}

static void flush_nothing(png_structp png) { (void)png; }

static void encode(png_structp png, png_infop info, png_job *job, const uint8_t *pixels, const int64_t *shape,
                   int packed) {
  if (setjmp(png_jmpbuf(png))) return;
  png_set_write_fn(png, job, write_bytes, flush_nothing);
  png_set_IHDR(png, info, (png_uint_32)shape[1], (png_uint_32)shape[0], 8,
               shape[2] == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!packed) {
    png_set_compression_level(png, 0);
    png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);
  }
  png_write_info(png, info);
  for (int64_t y = 0; y < shape[0]; y++) png_write_row(png, pixels + y * shape[1] * shape[2]);
  png_write_end(png, NULL);
}

static pg_status write_pixels(pg_writer *writer, const char *path, const uint8_t *pixels, const int64_t *shape,
                              int packed) {
  png_job job = {.path = path, .writer = writer};
  png_infop info = NULL;
  png_structp png =
      png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job, png_allocate, png_release);
  if (png) info = png_create_info_struct(png);
  if (info) encode(png, info, &job, pixels, shape, packed);
  else out_of_memory(&job);
  png_destroy_write_struct(&png, &info);
  return job.status;
}

static pg_status check_image(const char *path, const pg_tensor *image) {
  const pg_view *v = pg_tensor_info(image);
  bool fits = v->dtype == PG_UINT8 && v->ndim == 3 && (v->shape[2] == 3 || v->shape[2] == 1);
  for (int d = 0; fits && d < 2; d++) fits = v->shape[d] >= 1 && v->shape[d] <= PG_PICTURE_MAX_SIDE;
  if (!fits)
    return pg_error(PG_ERROR_ARGUMENT, "%s: a picture is uint8 [H,W,3] or [H,W,1] with sides of 1 to %d, not %s %s",
                    path, PG_PICTURE_MAX_SIDE, v->dtype == PG_UINT8 ? "uint8" : "another dtype's", pg_shape_text(v));
  if (!pg_contiguous(v)) return pg_error(PG_ERROR_ARGUMENT, "%s: the picture is not contiguous", path);
  if (pg_tensor_device(image) != PG_CPU) return pg_error(PG_ERROR_ARGUMENT, "%s: the picture is not on the CPU", path);
  return PG_OK;
}

pg_status pg_png_encode(pg_writer *writer, const char *path, const pg_tensor *image, int packed) {
  pg_status status = check_image(path, image);
  const pg_view *v = pg_tensor_info(image);
  return status ? status : write_pixels(writer, path, v->data, v->shape, packed);
}

pg_status pg_png_write(const char *path, const pg_tensor *image) {
  pg_writer *writer = NULL;
  pg_status status = check_image(path, image);
  if (!status) status = pg_writer_open(&writer, path);
  if (!status) status = pg_png_encode(writer, path, image, 1);
  if (!status) return pg_writer_commit(writer);
  pg_writer_abort(writer);
  return status;
}
