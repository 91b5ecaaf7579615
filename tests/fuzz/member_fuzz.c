/* Members of archives, stored and deflated (runtime/members.c): the bytes that the place says, or a refusal that names
 * archive and member. */
#include "fuzz.h"

enum { MOST = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t out[MOST];
  input in = {data, size};
  pg_place place = {0};
  place.deflated = take_byte(&in) % 2;
  place.summed = take_byte(&in) % 2;
  place.offset = take_number(&in);
  place.packed = take_number(&in);
  place.bytes = take_number(&in);
  for (int k = 0; k < 4; k++) place.crc = place.crc << 8 | take_byte(&in);
  if (place.bytes > MOST) place.bytes = MOST; /* the caller has made that room */
  const char *path = in_file(in.at, in.left);
  pg_status status = pg_member_read(path, "inner", &place, out);
  require_message(status);
  if (status) REQUIRE(strstr(pg_last_error(), path) && (status == PG_ERROR_IO || strstr(pg_last_error(), "inner")));
  else if (!place.deflated) REQUIRE(!memcmp(out, in.at + place.offset, (size_t)place.bytes));
  return 0;
}
