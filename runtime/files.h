/* Files for the runtime's own use: files.c, pictures and the loader. */
#ifndef PERIGEE_FILES_H
#define PERIGEE_FILES_H

#include "internal.h"

/* Opens for reading; -1 after pg_error(). *bytes is the file's size. */
int pg_file_open(const char *path, int64_t *bytes);
/* Exactly `bytes` at `offset` of an open file. */
pg_status pg_file_read_at(int fd, const char *path, int64_t offset, void *host, int64_t bytes);

/* A whole file in memory from pg_host_calloc, a zero byte after it. */
pg_status pg_file_whole(const char *path, char **bytes, int64_t *size);

/* An 8-bit RGB picture [height,width,3] in memory from pg_host_calloc. */
typedef struct pg_picture {
  uint8_t *pixels;
  int64_t height, width;
} pg_picture;

/* Memory for a picture whose sides its file told; an error where they are none. */
pg_status pg_picture_room(pg_picture *out, const char *name, int64_t height, int64_t width);
void pg_picture_free(pg_picture *p);
/* A PNG, JPEG or WebP file, or the bytes of one; `name` is what an error calls it. */
pg_status pg_picture_read(pg_picture *out, const char *path);
pg_status pg_picture_from(pg_picture *out, const char *name, const void *bytes, int64_t size);
/* Each of the three kinds; its pixels are the caller's to free, also after an error. */
pg_status pg_png_decode(pg_picture *out, const char *name, const void *bytes, int64_t size);
pg_status pg_jpeg_decode(pg_picture *out, const char *name, const void *bytes, int64_t size);
const char *pg_jpeg_version(void); /* NULL where this build has no libjpeg */
pg_status pg_webp_decode(pg_picture *out, const char *name, const void *bytes, int64_t size);
/* The picture's shorter side is scaled to fit, the longer one cropped at the centre; out is uint8 [height,width,3]. */
pg_status pg_picture_fit(const pg_picture *p, uint8_t *out, int64_t height, int64_t width);
/* ADM's centre crop: out is uint8 [side,side,3]. */
pg_status pg_picture_crop(const pg_picture *p, uint8_t *out, int64_t side);

#endif
