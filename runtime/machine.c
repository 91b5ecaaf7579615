/* The machine: clock, threads, processor, resident memory, signals, library versions. */
#include <omp.h>
#include <png.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "internal.h"

const char *pg_version(void) { return PERIGEE_VERSION; }

double pg_clock_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int pg_threads(void) { return omp_get_max_threads(); }

static int tf32;
int pg_tf32(void) { return tf32; }
void pg_tf32_set(int allowed) { tf32 = allowed != 0; }

pg_status pg_threads_set(int n) {
  if (n < 1 || n > 1024) return pg_error(PG_ERROR_ARGUMENT, "threads: %d; 1 to 1024 are possible", n);
  omp_set_num_threads(n);
  return PG_OK;
}

const char *pg_cpu_name(void) {
  static char name[128];
  if (name[0]) return name;
  snprintf(name, sizeof name, "unknown processor");
  FILE *file = fopen("/proc/cpuinfo", "r");
  char line[256];
  while (file && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (colon && !strncmp(line, "model name", 10)) {
      colon += strspn(colon, ": \t");
      colon[strcspn(colon, "\n")] = 0;
      snprintf(name, sizeof name, "%s", colon);
      break;
    }
  }
  if (file) fclose(file);
  return name;
}

const char *pg_library_versions(void) {
  static char text[160];
  snprintf(text, sizeof text, "libpng %s, zlib %s", png_get_libpng_ver(NULL), zlibVersion());
  return text;
}

int64_t pg_resident_bytes(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return 0;
  if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  fclose(file);
  return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static volatile sig_atomic_t pending;

static void on_signal(int number) {
  if (pending && number == SIGINT) _exit(130);
  pending = number;
}

pg_status pg_signals_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of the write, with a message */
  if (sigaction(SIGINT, &action, NULL) || sigaction(SIGTERM, &action, NULL))
    return pg_error(PG_ERROR_IO, "signals: the handlers could not be installed");
  return PG_OK;
}

int pg_signals_pending(void) { return pending; }
void pg_signals_clear(void) { pending = 0; }
