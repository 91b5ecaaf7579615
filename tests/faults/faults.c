/* A library to preload: the n-th call of a kind on files below a folder fails, as disks, networks and full tables make
 * them fail. tests/faults/faults_spec.lua and kills_spec.lua use it.
 *
 *   PERIGEE_FAULT_UNDER   the folder; calls on other files are neither counted nor touched
 *   PERIGEE_FAULT_NAME    the end of a path: only calls on such files are counted and fail
 *   PERIGEE_FAULT_CALL    open, read, write, fsync, rename or mmap
 *   PERIGEE_FAULT_AT      which of these calls fails, from 1; 0: none
 *   PERIGEE_FAULT_MORE    so many after it fail too
 *   PERIGEE_FAULT_ERRNO   with what number
 *   PERIGEE_FAULT_ROOM    from so many written bytes on, writes fail with ENOSPC, as on a full disk
 *   PERIGEE_FAULT_KILL    before which call, of all kinds, the process is killed
 *   PERIGEE_FAULT_LOG     gets the path of the call that failed
 *   PERIGEE_FAULT_COUNTS  gets a line "CALL NUMBER" for each kind of call at the end of the process, "all NUMBER" and
 *                         "bytes NUMBER" */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, FSYNC, RENAME, MMAP, KINDS };
static const char *const names[KINDS] = {"open", "read", "write", "fsync", "rename", "mmap"};
static atomic_long counts[KINDS], all, written;

/* The real function behind the one of this name that is defined here. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Appends a text to the file that a variable names, by system calls that nothing here stands before. */
static void note(const char *variable, const char *text) {
  const char *path = getenv(variable);
  long fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
  if (fd < 0) return;
  syscall(SYS_write, fd, text, strlen(text));
  syscall(SYS_close, fd);
}

static bool is_meant(const char *path) {
  const char *under = getenv("PERIGEE_FAULT_UNDER"), *name = getenv("PERIGEE_FAULT_NAME");
  if (!under || !path || strncmp(path, under, strlen(under))) return false;
  return !name || (strlen(path) >= strlen(name) && !strcmp(path + strlen(path) - strlen(name), name));
}

/* Counts a call on a path; true and errno if it shall fail. */
static bool fails(int kind, const char *path) {
  if (!is_meant(path)) return false;
  const char *call = getenv("PERIGEE_FAULT_CALL"), *at = getenv("PERIGEE_FAULT_AT"), *number = getenv("PERIGEE_FAULT_ERRNO");
  const char *more = getenv("PERIGEE_FAULT_MORE"), *last = getenv("PERIGEE_FAULT_KILL");
  long count = atomic_fetch_add(&counts[kind], 1) + 1;
  if (atomic_fetch_add(&all, 1) + 1 == (last ? atol(last) : 0)) kill(getpid(), SIGKILL);
  if (!call || !at || !number || strcmp(call, names[kind]) || count < atol(at)) return false;
  if (count > atol(at) + (more ? atol(more) : 0)) return false;
  note("PERIGEE_FAULT_LOG", path);
  errno = atoi(number);
  return true;
}

/* Counts bytes that are written to a path; true and errno where the disk is full. */
static bool is_full(const char *path, size_t bytes) {
  const char *room = getenv("PERIGEE_FAULT_ROOM");
  if (!is_meant(path) || atomic_fetch_add(&written, (long)bytes) + (long)bytes <= (room ? atol(room) : LONG_MAX)) return false;
  note("PERIGEE_FAULT_LOG", path);
  errno = ENOSPC;
  return true;
}

/* The same of an open file. `bytes` are written to it. */
static bool fails_at(int kind, int fd, size_t bytes) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = 0;
  return fails(kind, path) || (kind == WRITE && is_full(path, bytes));
}

__attribute__((destructor)) static void tell(void) {
  char text[256] = "";
  for (int kind = 0; kind < KINDS; kind++)
    sprintf(text + strlen(text), "%s %ld\n", names[kind], atomic_load(&counts[kind]));
  sprintf(text + strlen(text), "all %ld\nbytes %ld\n", atomic_load(&all), atomic_load(&written));
  note("PERIGEE_FAULT_COUNTS", text);
}

/* ---- the calls ---- */

#define OPEN_LIKE(name)                                  \
  int name(const char *path, int flags, ...) {           \
    va_list rest;                                        \
    va_start(rest, flags);                               \
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;  \
    va_end(rest);                                        \
    return fails(OPEN, path) ? -1 : NEXT(name)(path, flags, mode); \
  }
OPEN_LIKE(open)
OPEN_LIKE(open64)

FILE *fopen(const char *path, const char *mode) { return fails(OPEN, path) ? NULL : NEXT(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return fails(OPEN, path) ? NULL : NEXT(fopen64)(path, mode); }

ssize_t read(int fd, void *to, size_t n) { return fails_at(READ, fd, 0) ? -1 : NEXT(read)(fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t at) { return fails_at(READ, fd, 0) ? -1 : NEXT(pread)(fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at) {
  return fails_at(READ, fd, 0) ? -1 : NEXT(pread64)(fd, to, n, at);
}
struct dirent *readdir(DIR *folder) { return fails_at(READ, dirfd(folder), 0) ? NULL : NEXT(readdir)(folder); }
struct dirent64 *readdir64(DIR *folder) { return fails_at(READ, dirfd(folder), 0) ? NULL : NEXT(readdir64)(folder); }

ssize_t write(int fd, const void *from, size_t n) { return fails_at(WRITE, fd, n) ? -1 : NEXT(write)(fd, from, n); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) {
  return fails_at(WRITE, fd, n) ? -1 : NEXT(pwrite)(fd, from, n, at);
}
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) {
  return fails_at(WRITE, fd, n) ? -1 : NEXT(pwrite64)(fd, from, n, at);
}

int fsync(int fd) { return fails_at(FSYNC, fd, 0) ? -1 : NEXT(fsync)(fd); }
int rename(const char *from, const char *to) { return fails(RENAME, to) ? -1 : NEXT(rename)(from, to); }

void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t at) {
  return fd >= 0 && fails_at(MMAP, fd, 0) ? MAP_FAILED : NEXT(mmap)(where, n, protection, flags, fd, at);
}
void *mmap64(void *where, size_t n, int protection, int flags, int fd, off64_t at) {
  return fd >= 0 && fails_at(MMAP, fd, 0) ? MAP_FAILED : NEXT(mmap64)(where, n, protection, flags, fd, at);
}
