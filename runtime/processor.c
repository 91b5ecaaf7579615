/* The processor: its name, its threads, and the best of the instruction sets that the kernels are compiled for and it runs;
 * picked once. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* ---- name and threads ---- */

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

int pg_threads(void) { return omp_get_max_threads(); }

pg_status pg_threads_set(int n) {
  if (n < 1 || n > 1024) return pg_error(PG_ERROR_ARGUMENT, "threads: %d; 1 to 1024 are possible", n);
  omp_set_num_threads(n);
  return PG_OK;
}

/* ---- instruction sets ---- */

#if defined(__x86_64__)
/* The most that this machine runs. */
static int most_isa(void) {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
    return PG_ISA_baseline;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512cd"))
    return PG_ISA_v3;
  return __builtin_cpu_supports("avx512bf16") ? PG_ISA_v4_bf16 : PG_ISA_v4;
}

/* VDPBF16PS is one operation on AMD's processors and on Cooper Lake, and twice as fast as float32. Intel's from Sapphire
 * Rapids on make it of four: half as fast as float32 (docs/benchmarks.md). */
static bool multiplies_pairs_fast(void) { return __builtin_cpu_is("amd") || __builtin_cpu_is("cooperlake"); }
#else
static int most_isa(void) { return PG_ISA_baseline; }
static bool multiplies_pairs_fast(void) { return false; }
#endif

/* PERIGEE_ISA asks for another one than the best that the machine has: to test the other paths. NULL: it doesn't. */
static const char *wished_isa(void) {
  const char *wish = getenv("PERIGEE_ISA");
  return wish && *wish ? wish : NULL;
}

/* Names for PERIGEE_ISA; a build for tests has only one. */
#define ISA_WISH(name, ...) #name,
static const char *const isa_wishes[PG_ISAS] = {PG_ALL_ISAS(ISA_WISH)};
static bool has_isa(int isa) { return isa <= most_isa() && pg_kernel_isa_names[isa]; }

pg_status pg_cpu_isa_check(void) {
  const char *wish = wished_isa();
  if (!wish) return PG_OK;
  char names[64] = "";
  for (int isa = 0; isa < PG_ISAS; isa++) {
    if (!has_isa(isa)) continue;
    if (!strcmp(wish, isa_wishes[isa])) return PG_OK;
    snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? ", " : "", isa_wishes[isa]);
  }
  return pg_error(PG_ERROR_DEVICE, "PERIGEE_ISA is '%s'; this build on this processor has %s", wish, names);
}

int pg_cpu_isa_number(void) {
  static int chosen = -1;
  if (chosen >= 0) return chosen;
  const int most = most_isa();
  int best = most == PG_ISA_v4_bf16 && !multiplies_pairs_fast() ? PG_ISA_v4 : most;
  const char *wish = wished_isa();
  for (int isa = 0; wish && isa < PG_ISAS; isa++)
    if (has_isa(isa) && !strcmp(wish, isa_wishes[isa])) best = isa;
  while (!pg_kernel_isa_names[best]) best--;
  return chosen = best;
}

const char *pg_cpu_isa(void) { return pg_kernel_isa_names[pg_cpu_isa_number()]; }
