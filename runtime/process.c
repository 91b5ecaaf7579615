/* This process: versions, clock, resident memory. */
#include <png.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "files.h"

const char *pg_version(void) { return PERIGEE_VERSION; }

const char *pg_library_versions(void) {
  static char text[160];
  const char *jpeg = pg_jpeg_version();
  snprintf(text, sizeof text, "libpng %s, libjpeg %s, libwebp %s, zlib %s", png_get_libpng_ver(NULL),
           jpeg ? jpeg : "missing", pg_webp_available() ? "found" : "missing", zlibVersion());
  return text;
}

double pg_clock_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int64_t pg_resident_bytes(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return 0;
  if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  fclose(file);
  return (int64_t)resident * sysconf(_SC_PAGESIZE);
}
