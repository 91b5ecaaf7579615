/* PNG, JPEG and WebP files (runtime/png.c, jpeg.c, webp.c), and scaling and cropping what they hold. */
#include <zlib.h>

#include "fuzz.h"

enum { SIGNATURE = 8, AROUND = 12, MOST_PIXELS = 1 << 18 }; /* AROUND: a chunk's length, type and sum */

static uint32_t big_endian(const uint8_t *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

/* A PNG of more pixels than are worth the time? */
static bool is_large(const uint8_t *data, size_t size) {
  if (size < SIGNATURE + AROUND + 8 || data[0] != 0x89) return false;
  return (uint64_t)big_endian(data + 16) * big_endian(data + 20) > MOST_PIXELS;
}

/* Every allocation of a reading fails once: it says so and gives back what it has (LeakSanitizer looks). */
static void refuse_memory(const uint8_t *data, size_t size, pg_status expected) {
  pg_picture picture;
  for (int64_t n = 0;; n++) {
    pg_memory_fail_after(n);
    pg_status status = pg_picture_from(&picture, "some/picture", data, (int64_t)size);
    pg_memory_fail_after(-1);
    if (status == PG_ERROR_MEMORY) REQUIRE(!picture.pixels && strstr(pg_last_error(), "memory"));
    if (status != PG_ERROR_MEMORY || expected == PG_ERROR_MEMORY) {
      REQUIRE(status == expected);
      pg_picture_free(&picture);
      return;
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  pg_picture picture;
  if (is_large(data, size)) return 0;
  pg_status status = pg_picture_from(&picture, "some/picture", data, (int64_t)size);
  require_message(status);
  if (size % 8 == 0) refuse_memory(data, size, status);
  if (status) {
    REQUIRE(!picture.pixels && strstr(pg_last_error(), "some/picture"));
    return 0;
  }
  REQUIRE(picture.height >= 1 && picture.width >= 1);
  static uint8_t out[40 * 40 * 3];
  if (picture.height * picture.width <= MOST_PIXELS) {
    REQUIRE(!pg_picture_fit(&picture, out, 1 + data[size - 1] % 40, 1 + data[size / 2] % 40));
    REQUIRE(!pg_picture_crop(&picture, out, 1 + data[size - 1] % 40));
  }
  pg_picture_free(&picture);
  return 0;
}

#ifdef PERIGEE_FUZZER
/* A mutation whose chunks have right sums: else nearly every input would end at the first. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, most);
  if (seed % 8 == 0) return size;
  for (size_t at = SIGNATURE; at + AROUND <= size;) {
    size_t length = big_endian(data + at);
    if (length > size - at - AROUND) break;
    uint32_t sum = (uint32_t)crc32(0, data + at + 4, (uInt)length + 4);
    for (int k = 0; k < 4; k++) data[at + 8 + length + (size_t)k] = (uint8_t)(sum >> (24 - 8 * k));
    at += length + AROUND;
  }
  return size;
}
#endif
