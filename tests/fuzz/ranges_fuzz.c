/* Bytes at offsets of a file (runtime/files.c): reads and sums give the file's bytes or refuse, for any offset. */
#include "fuzz.h"

enum { MOST = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t out[MOST];
  input in = {data, size};
  int64_t offset = take_number(&in), bytes = take_number(&in), length = (int64_t)in.left, found = 0;
  const char *path = in_file(in.at, in.left);
  bool inside = offset >= 0 && bytes >= 0 && offset <= length && bytes <= length - offset;
  uint32_t sum = 0;
  REQUIRE(!pg_file_size(path, &found) && found == length);
  pg_status status = pg_file_crc32(path, offset, bytes, &sum);
  require_message(status);
  REQUIRE(inside == !status && (status || sum == pg_crc32(0, in.at + offset, bytes)));
  if (bytes <= MOST) {
    status = pg_file_read(path, offset, out, bytes);
    require_message(status);
    REQUIRE(inside == !status && (status || !memcmp(out, in.at + offset, (size_t)bytes)));
  }
  return 0;
}
