/* JPEG files through libjpeg: grey, YCbCr, RGB, CMYK and YCCK in, 8-bit RGB out. Turned or damaged pictures: what a
 * file's Exif data say about its orientation is ignored, as ImageNet's users do; one whose bits are damaged or end too
 * early is an error, where libjpeg would warn and fill the rest with grey. */
#include "files.h"

#ifndef PG_HAS_JPEG

const char *pg_jpeg_version(void) { return NULL; }

pg_status pg_jpeg_decode(pg_picture *out, const char *name, const void *bytes, int64_t size) {
  (void)out, (void)bytes, (void)size;
  return pg_error(PG_ERROR_UNSUPPORTED,
                  "%s: a JPEG picture, and Perigee was built without libjpeg; install it and run again: "
                  "sudo apt-get install libjpeg-dev", name);
}

#else

#include <stdio.h> /* libjpeg's header needs it */
#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)

const char *pg_jpeg_version(void) {
#ifdef LIBJPEG_TURBO_VERSION
  return TEXT_OF(LIBJPEG_TURBO_VERSION);
#else
  return TEXT_OF(JPEG_LIB_VERSION);
#endif
}

enum { MAX_SCANS = 500 };                    /* of a progressive file: each is a pass over all its pixels */
static const long MAX_MEMORY = 2000 * 1000 * 1000L; /* for the coefficients of a progressive file */

typedef struct jpeg_job {
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  jmp_buf back;
  const char *name;
  pg_status status;
} jpeg_job;

/* Both structures are found by the pointers that libjpeg hands back. */
static jpeg_job *job_of(j_common_ptr jpeg) { return jpeg->client_data; }

static void refuse(j_common_ptr jpeg, const char *what) {
  jpeg_job *job = job_of(jpeg);
  job->status = pg_error(PG_ERROR_FORMAT, "%s: not a readable JPEG: %s", job->name, what);
  longjmp(job->back, 1);
}

static void on_error(j_common_ptr jpeg) {
  char what[JMSG_LENGTH_MAX];
  if (jpeg->err->msg_code == JERR_OUT_OF_MEMORY || jpeg->err->msg_code == JERR_NO_BACKING_STORE) {
    jpeg_job *job = job_of(jpeg);
    job->status = pg_error(PG_ERROR_MEMORY, "%s: out of memory", job->name);
    longjmp(job->back, 1);
  }
  jpeg->err->format_message(jpeg, what);
  refuse(jpeg, what);
}

/* Warnings about pixels that are lost are errors; the others are no matter. */
static void on_message(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  switch (jpeg->err->msg_code) {
  case JWRN_JPEG_EOF: refuse(jpeg, "the file ends too early"); break;
  case JWRN_HIT_MARKER:
  case JWRN_HUFF_BAD_CODE:
  case JWRN_ARITH_BAD_CODE:
  case JWRN_MUST_RESYNC: on_error(jpeg);
  }
}

static void on_progress(j_common_ptr jpeg) {
  if (((j_decompress_ptr)jpeg)->input_scan_number > MAX_SCANS) refuse(jpeg, "it has more than 500 scans");
}

/* A row of inverted CMYK, as Adobe's programs and so nearly all write it, to RGB; in whole numbers as Pillow does. */
static void cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, int64_t width) {
  for (int64_t x = 0; x < width; x++)
    for (int c = 0; c < 3; c++) {
      int black = cmyk[4 * x + 3], product = (255 - cmyk[4 * x + c]) * black + 128;
      int value = black - ((product + (product >> 8)) >> 8);
      rgb[3 * x + c] = (uint8_t)(value < 0 ? 0 : value);
    }
}

static void choose_colours(j_decompress_ptr jpeg) {
  switch (jpeg->jpeg_color_space) {
  case JCS_GRAYSCALE:
  case JCS_YCbCr:
  case JCS_RGB: jpeg->out_color_space = JCS_RGB; break;
  case JCS_CMYK:
  case JCS_YCCK: jpeg->out_color_space = JCS_CMYK; break;
  default: refuse((j_common_ptr)jpeg, "its colours are neither grey, RGB nor CMYK");
  }
}

static void read_rows(j_decompress_ptr jpeg, pg_picture *out) {
  bool cmyk = jpeg->out_color_space == JCS_CMYK;
  JSAMPARRAY line = cmyk ? jpeg->mem->alloc_sarray((j_common_ptr)jpeg, JPOOL_IMAGE, 4 * jpeg->output_width, 1) : NULL;
  while (jpeg->output_scanline < jpeg->output_height) {
    uint8_t *to = out->pixels + (int64_t)jpeg->output_scanline * 3 * out->width;
    JSAMPROW row = cmyk ? line[0] : to;
    jpeg_read_scanlines(jpeg, &row, 1);
    if (cmyk) cmyk_to_rgb(row, to, out->width);
  }
}

static void decode(j_decompress_ptr jpeg, jpeg_job *job, pg_picture *out, const void *bytes, int64_t size) {
  if (setjmp(job->back)) return;
  jpeg_create_decompress(jpeg);
  jpeg->mem->max_memory_to_use = MAX_MEMORY;
  jpeg->progress = &job->progress;
  jpeg_mem_src(jpeg, bytes, (unsigned long)size);
  jpeg_read_header(jpeg, TRUE);
  choose_colours(jpeg);
  job->status = pg_picture_room(out, job->name, jpeg->image_height, jpeg->image_width);
  if (job->status) return;
  jpeg_start_decompress(jpeg);
  read_rows(jpeg, out);
  jpeg_finish_decompress(jpeg);
}

pg_status pg_jpeg_decode(pg_picture *out, const char *name, const void *bytes, int64_t size) {
  struct jpeg_decompress_struct jpeg = {0};
  jpeg_job job = {.name = name, .progress.progress_monitor = on_progress};
  jpeg.err = jpeg_std_error(&job.errors);
  job.errors.error_exit = on_error;
  job.errors.emit_message = on_message;
  jpeg.client_data = &job;
  decode(&jpeg, &job, out, bytes, size);
  jpeg_destroy_decompress(&jpeg);
  return job.status;
}

#endif
