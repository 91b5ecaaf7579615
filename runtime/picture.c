/* Pictures of the three kinds that are read, told apart by how they begin, whatever their names. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

pg_status pg_picture_room(pg_picture *out, const char *name, int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > PG_PICTURE_MAX_SIDE || width > PG_PICTURE_MAX_SIDE)
    return pg_error(PG_ERROR_FORMAT, "%s: a picture of %lldx%lld (width x height); sides are 1 to %d", name,
                    (long long)width, (long long)height, PG_PICTURE_MAX_SIDE);
  out->height = height;
  out->width = width;
  out->pixels = pg_host_calloc((size_t)height, 3 * (size_t)width);
  return out->pixels ? PG_OK : pg_error(PG_ERROR_MEMORY, "%s: out of memory", name);
}

void pg_picture_free(pg_picture *p) {
  pg_host_free(p->pixels);
  p->pixels = NULL;
}

static bool begins(const void *bytes, int64_t size, int64_t at, const char *mark, int64_t length) {
  return size >= at + length && !memcmp((const char *)bytes + at, mark, (size_t)length);
}

pg_status pg_picture_from(pg_picture *out, const char *name, const void *bytes, int64_t size) {
  enum { LOOKED_AT = 4096 };
  pg_status status;
  memset(out, 0, sizeof *out);
  if (begins(bytes, size, 0, "\x89PNG\r\n\x1a\n", 8)) status = pg_png_decode(out, name, bytes, size);
  else if (begins(bytes, size, 0, "\xff\xd8\xff", 3)) status = pg_jpeg_decode(out, name, bytes, size);
  else if (begins(bytes, size, 0, "RIFF", 4) && begins(bytes, size, 8, "WEBP", 4))
    status = pg_webp_decode(out, name, bytes, size);
  else {
    const char *found = pg_file_recognise(bytes, size < LOOKED_AT ? size : LOOKED_AT);
    status = pg_error(PG_ERROR_FORMAT, "%s: not a picture that can be read: %s%s", name,
                      found ? "it is " : "it is neither PNG, JPEG nor WebP", found ? found : "");
  }
  if (status) pg_picture_free(out);
  return status;
}

pg_status pg_picture_read(pg_picture *out, const char *path) {
  char *bytes = NULL;
  int64_t size = 0;
  memset(out, 0, sizeof *out);
  pg_status status = pg_file_whole(path, &bytes, &size);
  if (!status) status = pg_picture_from(out, path, bytes, size);
  pg_host_free(bytes);
  return status;
}

/* A picture as a tensor; the picture is freed. */
static pg_status to_tensor(pg_tensor **out, pg_picture *picture) {
  int64_t shape[3] = {picture->height, picture->width, 3};
  pg_status status = pg_tensor_new(out, PG_CPU, PG_PURPOSE_OTHER, PG_UINT8, 3, shape);
  if (!status) status = pg_tensor_write(*out, picture->pixels, shape[0] * shape[1] * 3);
  pg_picture_free(picture);
  return status;
}

pg_status pg_picture_load(pg_tensor **out, const char *path) {
  pg_picture picture;
  *out = NULL;
  pg_status status = pg_picture_read(&picture, path);
  return status ? status : to_tensor(out, &picture);
}

pg_status pg_picture_decode(pg_tensor **out, const char *name, const void *bytes, int64_t size) {
  pg_picture picture;
  *out = NULL;
  pg_status status = pg_picture_from(&picture, name, bytes, size);
  return status ? status : to_tensor(out, &picture);
}

pg_status pg_picture_centre_crop(pg_tensor **out, const pg_tensor *image, int64_t side) {
  const pg_view *v = pg_tensor_info(image);
  *out = NULL;
  if (v->dtype != PG_UINT8 || v->ndim != 3 || v->shape[2] != 3 || !pg_contiguous(v) ||
      pg_tensor_device(image) != PG_CPU || side < 1 || side > PG_PICTURE_MAX_SIDE)
    return pg_error(PG_ERROR_ARGUMENT, "picture: a crop of side %lld of %s; expected uint8 [H,W,3] in one piece",
                    (long long)side, pg_shape_text(v));
  int64_t shape[3] = {side, side, 3};
  pg_status status = pg_tensor_new(out, PG_CPU, PG_PURPOSE_OTHER, PG_UINT8, 3, shape);
  pg_picture picture = {.pixels = v->data, .height = v->shape[0], .width = v->shape[1]};
  if (!status) status = pg_picture_crop(&picture, pg_tensor_info(*out)->data, side);
  if (status) {
    pg_tensor_release(*out);
    *out = NULL;
  }
  return status;
}
