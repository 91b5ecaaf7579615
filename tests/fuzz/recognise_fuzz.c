/* What a file is by its beginning (runtime/recognise.c). */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *found = pg_file_recognise(data, (int64_t)size);
  REQUIRE(!found || strlen(found) > 4);
  REQUIRE(size || found);
  return 0;
}
