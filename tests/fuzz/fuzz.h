/* What the fuzz targets in C share. A target reads one input and must neither crash nor hang; where it can, it holds
 * what came out against a plain computation of its own. docs/testing.md says how they run. */
#ifndef PERIGEE_FUZZ_H
#define PERIGEE_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"
#include "internal.h"
#include "loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                                  \
  do {                                                                                                      \
    if (!(condition)) {                                                                                     \
      fprintf(stderr, "%s:%d: %s does not hold: %s\n", __FILE__, __LINE__, #condition, pg_last_error());    \
      abort();                                                                                              \
    }                                                                                                       \
  } while (0)

/* What is left of an input. */
typedef struct input {
  const uint8_t *at;
  size_t left;
} input;

static inline uint8_t take_byte(input *in) {
  if (!in->left) return 0;
  in->left--;
  return *in->at++;
}

/* A number: most are small, some have 64 bits of their own, some are at an edge. */
static inline int64_t take_number(input *in) {
  static const int64_t edges[] = {INT64_MIN, INT64_MAX, INT32_MAX, UINT32_MAX, -1, 1LL << 40, INT64_MAX / 8, 1 << 20};
  uint8_t kind = take_byte(in);
  if (kind < 160) return kind % 32;
  if (kind < 192) return edges[kind % 8];
  uint64_t bits = 0;
  for (int k = 0; k < (kind < 224 ? 2 : 8); k++) bits = bits << 8 | take_byte(in);
  return (int64_t)bits;
}

/* The path of a file in memory that holds these bytes and nothing else; the next call takes them away. */
static inline const char *in_file(const void *bytes, size_t size) {
  static int fd = -1;
  static char path[64];
  if (fd < 0) {
    fd = memfd_create("input", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  }
  if (ftruncate(fd, 0) || pwrite(fd, bytes, size, 0) != (ssize_t)size) abort();
  return path;
}

/* A failure says why. */
static inline void require_message(pg_status status) { REQUIRE(!status || strlen(pg_last_error()) > 8); }

#endif
