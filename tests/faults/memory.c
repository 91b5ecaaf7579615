/* A library to preload: the n-th allocation of a process fails, once. tests/faults/memory_faults_spec.lua uses it.
 *
 *   PERIGEE_MEMORY_KIND    malloc: malloc, calloc, realloc, strdup, posix_memalign and aligned_alloc, called from
 *                          Perigee's own code or a library that reads pictures, archives or folders for it; libgomp and
 *                          the loader of libraries, which end a process that has no memory, are left out.
 *                          mmap: anonymous memory, which is what LuaJIT takes its own from.
 *   PERIGEE_MEMORY_AT      which of them fails, from 1; 0: none
 *   PERIGEE_MEMORY_COUNTS  gets a line "KIND NUMBER" for both kinds at the end of the process */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MALLOC, MMAP, KINDS };
static const char *const names[KINDS] = {"malloc", "mmap"};
static atomic_long counts[KINDS];
static long at[KINDS]; /* which one fails; set once main() is near */
static bool ready;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

__attribute__((constructor)) static void prepare(void) {
  const char *kind = getenv("PERIGEE_MEMORY_KIND"), *number = getenv("PERIGEE_MEMORY_AT");
  for (int k = 0; k < KINDS; k++)
    if (kind && number && !strcmp(kind, names[k])) at[k] = atol(number);
  ready = true;
}

__attribute__((destructor)) static void tell(void) {
  const char *path = getenv("PERIGEE_MEMORY_COUNTS");
  char text[64];
  int length = snprintf(text, sizeof text, "malloc %ld\nmmap %ld\n", atomic_load(&counts[MALLOC]), atomic_load(&counts[MMAP]));
  long fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
  if (fd < 0) return;
  syscall(SYS_write, fd, text, length);
  syscall(SYS_close, fd);
}

/* Does the code at an address count? */
static bool is_ours(const void *caller) {
  Dl_info info;
  if (!dladdr(caller, &info) || !info.dli_fname) return false;
  const char *name = strrchr(info.dli_fname, '/');
  name = name ? name + 1 : info.dli_fname;
  static const char *const counted[] = {"perigee", "libperigee", "lfs", "libpng", "libz", "libjpeg", "libwebp"};
  for (size_t k = 0; k < sizeof counted / sizeof *counted; k++)
    if (!strncmp(name, counted[k], strlen(counted[k])) && strncmp(name, "perigee_", 8)) return true;
  return false;
}

static bool fails(int kind) {
  if (atomic_fetch_add(&counts[kind], 1) + 1 != at[kind]) return false;
  errno = ENOMEM;
  return true;
}

#define FAILS (ready && is_ours(__builtin_return_address(0)) && fails(MALLOC))

void *malloc(size_t bytes) { return FAILS ? NULL : __libc_malloc(bytes); }
void *calloc(size_t n, size_t bytes) { return FAILS ? NULL : __libc_calloc(n, bytes); }
void *realloc(void *block, size_t bytes) { return FAILS ? NULL : __libc_realloc(block, bytes); }
void *aligned_alloc(size_t alignment, size_t bytes) { return FAILS ? NULL : __libc_memalign(alignment, bytes); }

int posix_memalign(void **out, size_t alignment, size_t bytes) {
  if (FAILS) return ENOMEM;
  void *block = __libc_memalign(alignment, bytes);
  if (!block) return ENOMEM;
  *out = block;
  return 0;
}

char *strdup(const char *text) {
  size_t bytes = strlen(text) + 1;
  char *copy = FAILS ? NULL : __libc_malloc(bytes);
  return copy ? memcpy(copy, text, bytes) : NULL;
}

void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t offset) {
  if (ready && fd < 0 && fails(MMAP)) return MAP_FAILED;
  return (void *)syscall(SYS_mmap, where, n, protection, flags, fd, offset);
}
void *mmap64(void *where, size_t n, int protection, int flags, int fd, off64_t offset) {
  return mmap(where, n, protection, flags, fd, offset);
}
