#include "shared.h"

#include <cstdio>
#include <cstring>

#include "cuda_on_cpu.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

static const size_t zone = 64; /* before the first variable and after each, to the next multiple of it */
static const int most_variables = 64;
static const unsigned char untouched = 0xa5, nan_byte = 0xff;

struct variable {
  const void *key;           /* nullptr: the dynamic one */
  size_t offset, bytes, end; /* end: of the zone behind it */
};

alignas(1024) static unsigned char memory[shared_most + (most_variables + 2) * 2 * zone];
static variable variables[most_variables];
static int count;
static size_t used, static_bytes;

static variable *add(const void *key, size_t bytes) {
  if (count == most_variables) cuda_on_cpu_fail("more than %d shared variables in a kernel", most_variables);
  size_t end = (used + bytes + zone + zone - 1) / zone * zone;
  variable *v = &variables[count++];
  *v = {key, used, bytes, end};
  memset(memory + used, nan_byte, bytes);
  memset(memory + used + bytes, untouched, end - used - bytes);
  ASAN_POISON_MEMORY_REGION(memory + used + bytes, end - used - bytes);
  used = end;
  return v;
}

void shared_begin(size_t dynamic_bytes) {
  count = 0;
  static_bytes = 0;
  memset(memory, untouched, zone);
  ASAN_POISON_MEMORY_REGION(memory, zone);
  used = zone;
  add(nullptr, dynamic_bytes);
}

static bool is_untouched(size_t from, size_t end) {
  for (size_t k = from; k < end; k++)
    if (memory[k] != untouched) return false;
  return true;
}

const char *shared_end() {
  static char text[160];
  ASAN_UNPOISON_MEMORY_REGION(memory, used);
  if (!is_untouched(0, zone)) return "wrote before its dynamic shared memory";
  for (int k = 0; k < count; k++) {
    const variable &v = variables[k];
    if (is_untouched(v.offset + v.bytes, v.end)) continue;
    snprintf(text, sizeof text, "wrote past the end of %s shared variable of %zu bytes", v.key ? "a" : "the dynamic",
             v.bytes);
    return text;
  }
  return nullptr;
}

void *cuda_on_cpu_shared(const void *key, size_t bytes) {
  for (int k = 1; k < count; k++)
    if (variables[k].key == key) return memory + variables[k].offset;
  static_bytes += bytes;
  if (static_bytes > shared_most_static || static_bytes + variables[0].bytes > shared_most)
    cuda_on_cpu_fail("shared memory of %zu bytes, and %zu dynamic ones: at most %zu fit, and %zu with these", static_bytes,
                     variables[0].bytes, shared_most_static, shared_most);
  return memory + add(key, bytes)->offset;
}

void *cuda_on_cpu_dynamic_shared() { return memory + variables[0].offset; }
