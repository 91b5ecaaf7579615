/* Files for the runtime's own use: files.c, png.c, resample.c and the loader. */
#ifndef PERIGEE_FILES_H
#define PERIGEE_FILES_H

#include "internal.h"

/* Opens for reading; -1 after pg_error(). *bytes is the file's size. */
int pg_file_open(const char *path, int64_t *bytes);
/* Exactly `bytes` at `offset` of an open file. */
pg_status pg_file_read_at(int fd, const char *path, int64_t offset, void *host, int64_t bytes);

/* An 8-bit RGB picture [height,width,3] in memory from pg_host_calloc. */
typedef struct pg_picture {
  uint8_t *pixels;
  int64_t height, width;
} pg_picture;

pg_status pg_picture_read(pg_picture *out, const char *path);
void pg_picture_free(pg_picture *p);
/* The picture's shorter side is scaled to fit, the longer one cropped at the centre; out is uint8 [height,width,3]. */
pg_status pg_picture_fit(const pg_picture *p, uint8_t *out, int64_t height, int64_t width);

#endif
