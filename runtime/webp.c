/* WebP files through libwebp, which is opened when the first such file comes: a machine without it does all else. */
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "files.h"

static struct { /* of libwebp's decode.h */
  int (*size)(const uint8_t *bytes, size_t n, int *width, int *height); /* 0: not a WebP file */
  uint8_t *(*decode)(const uint8_t *bytes, size_t n, uint8_t *out, size_t room, int stride); /* NULL: failed */
} webp;

static void open_library(void) {
  void *library = dlopen("libwebp.so.7", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  *(void **)&webp.size = dlsym(library, "WebPGetInfo");
  *(void **)&webp.decode = dlsym(library, "WebPDecodeRGBInto");
}

int pg_webp_available(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, open_library);
  return webp.size && webp.decode;
}

static bool is_animated(const uint8_t *bytes, int64_t size) {
  return size > 20 && !memcmp(bytes + 12, "VP8X", 4) && bytes[20] & 2;
}

pg_status pg_webp_decode(pg_picture *out, const char *name, const void *given, int64_t size) {
  const uint8_t *bytes = given;
  int width = 0, height = 0;
  if (!pg_webp_available())
    return pg_error(PG_ERROR_UNSUPPORTED,
                    "%s: a WebP picture, and libwebp is missing; install it: sudo apt-get install libwebp7", name);
  int64_t announced = 8 + (bytes[4] | bytes[5] << 8 | bytes[6] << 16 | (int64_t)bytes[7] << 24);
  if (announced > size) return pg_error(PG_ERROR_FORMAT, "%s: not a readable WebP: the file ends too early", name);
  if (is_animated(bytes, size))
    return pg_error(PG_ERROR_FORMAT, "%s: an animated WebP; expected one picture", name);
  if (!webp.size(bytes, (size_t)size, &width, &height))
    return pg_error(PG_ERROR_FORMAT, "%s: not a readable WebP: its header is damaged", name);
  pg_status status = pg_picture_room(out, name, height, width);
  if (status) return status;
  if (webp.decode(bytes, (size_t)size, out->pixels, (size_t)height * 3 * (size_t)width, 3 * width)) return PG_OK;
  return pg_error(PG_ERROR_FORMAT, "%s: not a readable WebP: its data are damaged", name);
}
