/* Files: checked reads of bulk bytes, and writers whose file appears whole or not at all. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include "files.h"

enum { PIECE = 4 << 20 }; /* bytes that pass between a file and another device at a time */

static pg_status io_error(const char *path, const char *what) {
  return pg_error(PG_ERROR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* ---- system calls that a signal may cut short, on some network file systems even those that have to do with no data ---- */

static int open_file(const char *path, int flags) {
  int fd;
  do fd = open(path, flags | O_CLOEXEC, 0666);
  while (fd < 0 && errno == EINTR);
  return fd;
}

static int sync_file(int fd) {
  int failed;
  do failed = fsync(fd);
  while (failed && errno == EINTR);
  return failed;
}

static int rename_file(const char *from, const char *to) {
  int failed;
  do failed = rename(from, to);
  while (failed && errno == EINTR);
  return failed;
}

static int lock_file(int fd) {
  int failed;
  do failed = flock(fd, LOCK_EX | LOCK_NB);
  while (failed && errno == EINTR);
  return failed;
}

static int truncate_file(int fd, int64_t bytes) {
  int failed;
  do failed = ftruncate(fd, bytes);
  while (failed && errno == EINTR);
  return failed;
}

/* ---- reading ---- */

int pg_file_open(const char *path, int64_t *bytes) {
  struct stat info;
  int fd = open_file(path, O_RDONLY);
  if (fd < 0) {
    io_error(path, "cannot be opened");
    return -1;
  }
  if (fstat(fd, &info) || !S_ISREG(info.st_mode)) {
    close(fd);
    pg_error(PG_ERROR_IO, "%s: not a regular file", path);
    return -1;
  }
  *bytes = info.st_size;
  return fd;
}

pg_status pg_file_whole(const char *path, char **bytes, int64_t *size) {
  int fd = pg_file_open(path, size);
  if (fd < 0) return PG_ERROR_IO;
  *bytes = pg_host_calloc((size_t)*size + 1, 1);
  pg_status status =
      *bytes ? pg_file_read_at(fd, path, 0, *bytes, *size) : pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  close(fd);
  return status;
}

pg_status pg_file_read_at(int fd, const char *path, int64_t offset, void *host, int64_t bytes) {
  for (char *to = host; bytes > 0;) {
    ssize_t got = pread(fd, to, (size_t)bytes, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error(path, "cannot be read");
    if (got == 0)
      return pg_error(PG_ERROR_FORMAT, "%s: it ends at byte %lld, %lld bytes short", path, (long long)offset,
                      (long long)bytes);
    to += got;
    offset += got;
    bytes -= got;
  }
  return PG_OK;
}

pg_status pg_folder_list(const char *path, char *names, int64_t room, int64_t *bytes) {
  int fd = open_file(path, O_RDONLY | O_DIRECTORY);
  DIR *folder = fd < 0 ? NULL : fdopendir(fd);
  if (!folder) {
    pg_status status = io_error(path, "cannot be listed");
    if (fd >= 0) close(fd);
    return status;
  }
  pg_status status = PG_OK;
  for (*bytes = 0; !status;) {
    errno = 0;
    const struct dirent *entry = readdir(folder);
    if (!entry && errno == EINTR) continue;
    if (!entry && errno) status = io_error(path, "cannot be listed");
    if (!entry) break;
    int64_t length = (int64_t)strlen(entry->d_name) + 1;
    if (*bytes + length <= room) memcpy(names + *bytes, entry->d_name, (size_t)length);
    *bytes += length;
  }
  closedir(folder);
  return status;
}

/* Opens a file that must hold [offset, offset + bytes). */
static int open_range(const char *path, int64_t offset, int64_t bytes) {
  int64_t size = 0;
  if (offset < 0 || bytes < 0) {
    pg_error(PG_ERROR_ARGUMENT, "%s: %lld bytes at offset %lld make no sense", path, (long long)bytes,
             (long long)offset);
    return -1;
  }
  int fd = pg_file_open(path, &size);
  if (fd >= 0 && (offset > size || bytes > size - offset)) {
    close(fd);
    pg_error(PG_ERROR_FORMAT, "%s: %lld bytes at offset %lld are wanted, the file has %lld bytes", path,
             (long long)bytes, (long long)offset, (long long)size);
    return -2;
  }
  return fd;
}

static pg_status range_status(int fd, int64_t offset, int64_t bytes) {
  return fd == -2 ? PG_ERROR_FORMAT : offset < 0 || bytes < 0 ? PG_ERROR_ARGUMENT : PG_ERROR_IO;
}

pg_status pg_file_size(const char *path, int64_t *bytes) {
  int fd = pg_file_open(path, bytes);
  if (fd < 0) return PG_ERROR_IO;
  close(fd);
  return PG_OK;
}

pg_status pg_disk_free(const char *folder, int64_t *bytes) {
  struct statvfs info;
  if (statvfs(folder, &info)) return io_error(folder, "its disk cannot be asked for its free space");
  *bytes = (int64_t)info.f_bavail * (int64_t)info.f_frsize;
  return PG_OK;
}

pg_status pg_file_read(const char *path, int64_t offset, void *host, int64_t bytes) {
  int fd = open_range(path, offset, bytes);
  if (fd < 0) return range_status(fd, offset, bytes);
  pg_status status = pg_file_read_at(fd, path, offset, host, bytes);
  close(fd);
  return status;
}

/* File to device in pieces, through host memory. */
static pg_status read_in_pieces(int fd, const char *path, int64_t offset, const pg_tensor *t, int64_t bytes,
                                uint32_t *crc) {
  const pg_device_ops *device = pg_device(pg_tensor_device(t));
  char *piece = pg_host_calloc(1, PIECE);
  if (!piece) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  pg_status status = PG_OK;
  for (int64_t done = 0; done < bytes && !status; done += PIECE) {
    int64_t now = bytes - done < PIECE ? bytes - done : PIECE;
    status = pg_file_read_at(fd, path, offset + done, piece, now);
    if (!status && crc) *crc = pg_crc32(*crc, piece, now);
    if (!status) status = device->from_host((char *)pg_tensor_info(t)->data + done, piece, now);
  }
  pg_host_free(piece);
  return status;
}

/* File to memory in pieces, whose sum is taken while they are in the cache. */
static pg_status read_summed(int fd, const char *path, int64_t offset, char *to, int64_t bytes, uint32_t *crc) {
  for (int64_t done = 0; done < bytes; done += PIECE) {
    int64_t now = bytes - done < PIECE ? bytes - done : PIECE;
    pg_status status = pg_file_read_at(fd, path, offset + done, to + done, now);
    if (status) return status;
    *crc = pg_crc32(*crc, to + done, now);
  }
  return PG_OK;
}

pg_status pg_file_read_tensor(const char *path, int64_t offset, pg_tensor *t, uint32_t *crc) {
  const pg_view *v = pg_tensor_info(t);
  if (!pg_contiguous(v)) return pg_error(PG_ERROR_ARGUMENT, "%s: the tensor to read into is not contiguous", path);
  int64_t bytes = pg_numel(v) * pg_dtype_bytes(v->dtype);
  int fd = open_range(path, offset, bytes);
  if (fd < 0) return range_status(fd, offset, bytes);
  pg_status status;
  if (crc) *crc = 0;
  if (pg_tensor_device(t) != PG_CPU) status = read_in_pieces(fd, path, offset, t, bytes, crc);
  else if (crc) status = read_summed(fd, path, offset, v->data, bytes, crc);
  else status = pg_file_read_at(fd, path, offset, v->data, bytes);
  close(fd);
  return status;
}

/* ---- writing ---- */

struct pg_writer {
  int fd;
  bool appends;      /* to the file itself: a failed write is no reason against another */
  int64_t bytes;
  pg_status failed;  /* the first failure; nothing is committed after one */
  char *path, *part; /* the file, and the temporary one next to it */
};

static _Atomic int64_t bytes_left = -1;

void pg_writer_fail_after(int64_t bytes) { atomic_store(&bytes_left, bytes); }

/* Bytes that may still be written according to the test hook. */
static int64_t allowed(int64_t bytes) {
  int64_t left = atomic_load(&bytes_left);
  if (left < 0) return bytes;
  int64_t now = bytes < left ? bytes : left;
  atomic_store(&bytes_left, left - now);
  return now;
}

static void writer_free(pg_writer *w) {
  if (w->fd >= 0) close(w->fd);
  pg_host_free(w->path);
  pg_host_free(w->part);
  pg_host_free(w);
}

static pg_writer *writer_new(const char *path) {
  enum { SUFFIX = 32 };
  size_t length = strlen(path);
  pg_writer *w = pg_host_calloc(1, sizeof *w);
  if (!w) return NULL;
  w->fd = -1;
  w->path = pg_host_calloc(length + 1, 1);
  w->part = pg_host_calloc(length + SUFFIX, 1);
  if (!w->path || !w->part) {
    writer_free(w);
    return NULL;
  }
  memcpy(w->path, path, length);
  return w;
}

/* A new temporary file, locked against pg_writer_sweep; -1 and errno EEXIST where another has it. */
static int open_temporary(const char *path) {
  struct stat info;
  int fd = open_file(path, O_RDWR | O_CREAT | O_EXCL);
  if (fd < 0) return -1;
  bool taken = lock_file(fd) && errno == EWOULDBLOCK; /* a file system without locks has none to respect */
  if (!taken && !fstat(fd, &info) && info.st_nlink > 0) return fd;
  close(fd); /* it was swept before it was locked */
  errno = EEXIST;
  return -1;
}

pg_status pg_writer_open(pg_writer **out, const char *path) {
  static atomic_uint serial;
  *out = NULL;
  pg_writer *w = writer_new(path);
  if (!w) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  for (int tries = 0; w->fd < 0 && tries < 1000; tries++) {
    sprintf(w->part, "%s.tmp-%d-%u", path, (int)getpid(), atomic_fetch_add(&serial, 1) % 1000000);
    w->fd = open_temporary(w->part);
    if (w->fd < 0 && errno != EEXIST) break;
  }
  if (w->fd < 0) {
    pg_status status = io_error(path, "cannot be written");
    writer_free(w);
    return status;
  }
  *out = w;
  return PG_OK;
}

pg_status pg_writer_resume(pg_writer **out, const char *path, int64_t *bytes) {
  *out = NULL;
  pg_writer *w = writer_new(path);
  if (!w) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  sprintf(w->part, "%s.part", path);
  w->fd = open_file(w->part, O_RDWR | O_CREAT | O_NOFOLLOW);
  struct stat info;
  pg_status status = PG_OK;
  if (w->fd < 0 || fstat(w->fd, &info)) status = io_error(w->part, "cannot be written");
  else if (lock_file(w->fd)) status = pg_error(PG_ERROR_IO, "%s: another process writes it", w->part);
  if (status) {
    writer_free(w);
    return status;
  }
  *bytes = w->bytes = info.st_size;
  *out = w;
  return PG_OK;
}

pg_status pg_writer_append(pg_writer **out, const char *path) {
  *out = NULL;
  pg_writer *w = writer_new(path);
  if (!w) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  strcpy(w->part, path);
  w->appends = true;
  w->fd = open_file(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK); /* a pipe nobody reads fails */
  struct stat info;
  pg_status status = PG_OK;
  if (w->fd < 0 || fstat(w->fd, &info)) status = io_error(path, "cannot be written");
  else if (!S_ISREG(info.st_mode)) status = pg_error(PG_ERROR_IO, "%s: cannot be written: not a regular file", path);
  if (status) {
    writer_free(w);
    return status;
  }
  *out = w;
  return PG_OK;
}

static pg_status write_at(pg_writer *w, int64_t offset, const void *host, int64_t bytes) {
  for (const char *from = host; bytes > 0 && !w->failed;) {
    int64_t now = allowed(bytes);
    ssize_t put = now > 0 ? pwrite(w->fd, from, (size_t)now, offset) : -1;
    if (now == 0) errno = ENOSPC;
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      w->failed = io_error(w->path, "cannot be written");
      break;
    }
    from += put;
    offset += put;
    bytes -= put;
    if (offset > w->bytes) w->bytes = offset;
  }
  return w->failed;
}

static pg_status earlier_failure(const pg_writer *w) {
  return pg_error(w->failed, "%s: an earlier write failed, so nothing more is written", w->path);
}

pg_status pg_writer_write(pg_writer *w, const void *host, int64_t bytes) {
  if (w->appends) w->failed = PG_OK;
  if (w->failed) return earlier_failure(w);
  return write_at(w, w->bytes, host, bytes);
}

/* Memory to file in pieces, whose sum is taken while they are in the cache. */
static pg_status write_summed(pg_writer *w, const char *from, int64_t bytes, uint32_t *crc) {
  for (int64_t done = 0; done < bytes && !w->failed; done += PIECE) {
    int64_t now = bytes - done < PIECE ? bytes - done : PIECE;
    *crc = pg_crc32(*crc, from + done, now);
    write_at(w, w->bytes, from + done, now);
  }
  return w->failed;
}

/* Device to file in pieces, through host memory. */
static pg_status write_in_pieces(pg_writer *w, const pg_tensor *t, int64_t bytes, uint32_t *crc) {
  const pg_device_ops *device = pg_device(pg_tensor_device(t));
  char *piece = pg_host_calloc(1, PIECE);
  if (!piece) return w->failed = pg_error(PG_ERROR_MEMORY, "%s: out of memory", w->path);
  for (int64_t done = 0; done < bytes && !w->failed; done += PIECE) {
    int64_t now = bytes - done < PIECE ? bytes - done : PIECE;
    w->failed = device->to_host(piece, (const char *)pg_tensor_info(t)->data + done, now);
    if (w->failed) break;
    if (crc) *crc = pg_crc32(*crc, piece, now);
    write_at(w, w->bytes, piece, now);
  }
  pg_host_free(piece);
  return w->failed;
}

pg_status pg_writer_write_tensor(pg_writer *w, const pg_tensor *t, uint32_t *crc) {
  const pg_view *v = pg_tensor_info(t);
  if (w->failed) return earlier_failure(w);
  if (!pg_contiguous(v)) return pg_error(PG_ERROR_ARGUMENT, "%s: the tensor to write is not contiguous", w->path);
  int64_t bytes = pg_numel(v) * pg_dtype_bytes(v->dtype);
  if (crc) *crc = 0;
  if (pg_tensor_device(t) != PG_CPU) return write_in_pieces(w, t, bytes, crc);
  return crc ? write_summed(w, v->data, bytes, crc) : write_at(w, w->bytes, v->data, bytes);
}

static pg_status check_inside(const pg_writer *w, int64_t offset, int64_t bytes) {
  if (offset >= 0 && bytes >= 0 && offset <= w->bytes && bytes <= w->bytes - offset) return PG_OK;
  return pg_error(PG_ERROR_ARGUMENT, "%s: %lld bytes at offset %lld are not inside the %lld written", w->path,
                  (long long)bytes, (long long)offset, (long long)w->bytes);
}

pg_status pg_writer_write_at(pg_writer *w, int64_t offset, const void *host, int64_t bytes) {
  if (w->failed) return earlier_failure(w);
  pg_status status = check_inside(w, offset, bytes);
  return status ? status : write_at(w, offset, host, bytes);
}

pg_status pg_writer_read_at(pg_writer *w, int64_t offset, void *host, int64_t bytes) {
  pg_status status = check_inside(w, offset, bytes);
  return status ? status : pg_file_read_at(w->fd, w->part, offset, host, bytes);
}

pg_status pg_writer_truncate(pg_writer *w, int64_t bytes) {
  if (w->failed) return earlier_failure(w);
  pg_status status = check_inside(w, 0, bytes);
  if (status) return status;
  if (truncate_file(w->fd, bytes)) return w->failed = io_error(w->path, "cannot be shortened");
  w->bytes = bytes;
  return PG_OK;
}

int64_t pg_writer_bytes(const pg_writer *w) { return w->bytes; }

uint32_t pg_crc32(uint32_t crc, const void *host, int64_t bytes) {
  const unsigned char *from = host;
  for (int64_t done = 0; done < bytes; done += PIECE)
    crc = (uint32_t)crc32(crc, from + done, (uInt)(bytes - done < PIECE ? bytes - done : PIECE));
  return crc;
}

/* The sum of a part of an open file. */
static pg_status sum_of(int fd, const char *path, int64_t offset, int64_t bytes, uint32_t *crc) {
  unsigned char *piece = pg_host_calloc(1, PIECE);
  if (!piece) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  pg_status status = PG_OK;
  *crc = 0;
  for (int64_t done = 0; done < bytes && !status; done += PIECE) {
    int64_t now = bytes - done < PIECE ? bytes - done : PIECE;
    status = pg_file_read_at(fd, path, offset + done, piece, now);
    if (!status) *crc = pg_crc32(*crc, piece, now);
  }
  pg_host_free(piece);
  return status;
}

pg_status pg_file_crc32(const char *path, int64_t offset, int64_t bytes, uint32_t *crc) {
  int fd = open_range(path, offset, bytes);
  if (fd < 0) return range_status(fd, offset, bytes);
  pg_status status = sum_of(fd, path, offset, bytes, crc);
  close(fd);
  return status;
}

uint32_t pg_record_crc32(uint32_t seed, int64_t number, const void *host, int64_t bytes) {
  return pg_crc32(pg_crc32(seed, &number, sizeof number), host, bytes);
}

pg_status pg_writer_crc32(pg_writer *w, int64_t offset, int64_t bytes, uint32_t *crc) {
  pg_status status = check_inside(w, offset, bytes);
  return status ? status : sum_of(w->fd, w->part, offset, bytes, crc);
}

/* Makes a rename in the file's folder outlast a crash. */
static pg_status sync_folder(pg_writer *w) {
  char *slash = strrchr(w->path, '/');
  char *folder = w->part; /* its name is no longer needed */
  size_t length = slash ? (size_t)(slash - w->path) : 0;
  if (!slash) strcpy(folder, ".");
  else if (length == 0) strcpy(folder, "/");
  else {
    memcpy(folder, w->path, length);
    folder[length] = 0;
  }
  int fd = open_file(folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return io_error(folder, "cannot be opened");
  /* Some file systems cannot sync a folder and say EINVAL; the file itself is safe. */
  pg_status status = sync_file(fd) && errno != EINVAL ? io_error(folder, "cannot be synced") : PG_OK;
  close(fd);
  return status;
}

static pg_status put_in_place(pg_writer *w, bool synced) {
  pg_status status = w->failed ? earlier_failure(w) : PG_OK;
  if (!status && synced && sync_file(w->fd)) status = io_error(w->path, "cannot be synced");
  if (!status && rename_file(w->part, w->path)) status = io_error(w->path, "cannot be put in place");
  if (status) unlink(w->part);
  else if (synced) status = sync_folder(w);
  writer_free(w);
  return status;
}

pg_status pg_writer_commit(pg_writer *w) { return put_in_place(w, true); }

pg_status pg_writer_place(pg_writer *w) { return put_in_place(w, false); }

pg_status pg_disk_sync(const char *folder) {
  int fd = open_file(folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return io_error(folder, "cannot be opened");
  pg_status status = syncfs(fd) ? io_error(folder, "its disk cannot be synced") : PG_OK;
  close(fd);
  return status;
}

pg_status pg_writer_suspend(pg_writer *w) {
  pg_status status = sync_file(w->fd) ? io_error(w->part, "cannot be synced") : PG_OK;
  writer_free(w);
  return status;
}

void pg_writer_abort(pg_writer *w) {
  if (!w) return;
  unlink(w->part);
  writer_free(w);
}

pg_status pg_writer_sweep(const char *part) {
  int fd = open_file(part, O_RDWR | O_NOFOLLOW | O_NONBLOCK); /* NFS gives no lock for reading alone */
  if (fd < 0) return errno == ENOENT ? PG_OK : io_error(part, "cannot be opened");
  bool written = lock_file(fd) && errno == EWOULDBLOCK;
  pg_status status = !written && unlink(part) && errno != ENOENT ? io_error(part, "cannot be removed") : PG_OK;
  close(fd);
  return status;
}

/* ---- locks ---- */

struct pg_lock {
  int fd;
};

/* The number that the holder of a lock wrote into it. */
static int64_t read_holder(int fd) {
  char text[24] = "";
  ssize_t got = pread(fd, text, sizeof text - 1, 0);
  long long number = 0;
  return got > 0 && sscanf(text, "%lld", &number) == 1 ? number : 0;
}

pg_status pg_lock_take(pg_lock **out, const char *path, int64_t *holder) {
  *out = NULL;
  *holder = 0;
  pg_lock *l = pg_host_calloc(1, sizeof *l);
  if (!l) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", path);
  l->fd = open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW);
  if (l->fd < 0) {
    pg_status status = io_error(path, "cannot be opened");
    pg_host_free(l);
    return status;
  }
  if (lock_file(l->fd) && errno == EWOULDBLOCK) { /* a file system without locks lets everyone in */
    *holder = read_holder(l->fd);
    close(l->fd);
    pg_host_free(l);
    return PG_OK;
  }
  if (truncate_file(l->fd, 0) || dprintf(l->fd, "%d\n", (int)getpid()) < 0)
    *holder = 0; /* the number only helps a message */
  *out = l;
  return PG_OK;
}

void pg_lock_free(pg_lock *l) {
  if (!l) return;
  close(l->fd);
  pg_host_free(l);
}
