/* The files of a loader's field: whole ones in a folder, or members of archives, which are not unpacked for that. Their
 * places come from a directory that Lua has parsed; here they are held against the archives' sizes, and a member against
 * its own size and sum. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "files.h"
#include "loader.h"

enum { MOST_TIMES = 1032 }; /* deflate makes at most so many bytes of one */

/* ---- one member ---- */

static pg_status damaged(const char *archive, const char *name, const char *what) {
  return pg_error(PG_ERROR_FORMAT, "%s: %s: %s", archive, name, what);
}

/* Exactly to[bytes] from exactly from[packed]. */
static pg_status inflate_all(const char *archive, const char *name, const void *from, int64_t packed, void *to,
                             int64_t bytes) {
  z_stream z = {.next_in = (Bytef *)(uintptr_t)from, .avail_in = (uInt)packed, .next_out = to, .avail_out = (uInt)bytes};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", archive);
  int result = inflate(&z, Z_FINISH);
  int64_t left = z.avail_in, missing = z.avail_out;
  inflateEnd(&z);
  if (result == Z_STREAM_END && !left && !missing) return PG_OK;
  if (result == Z_MEM_ERROR) return pg_error(PG_ERROR_MEMORY, "%s: out of memory", archive);
  bool longer = result == Z_BUF_ERROR && !missing;
  return damaged(archive, name, longer ? "it unpacks to more bytes than its directory says" : "its packed bytes are damaged");
}

static pg_status check_place(const char *archive, const char *name, const pg_place *p, int64_t size) {
  if (p->offset < 0 || p->packed < 0 || p->bytes < 0 || p->offset > size || p->packed > size - p->offset)
    return damaged(archive, name, "it lies outside the file");
  if (!p->deflated && p->packed != p->bytes) return damaged(archive, name, "it has two sizes");
  if (p->deflated && (p->packed > PG_MEMBER_MAX_BYTES || p->bytes > PG_MEMBER_MAX_BYTES))
    return damaged(archive, name, "it is larger than 1 GiB");
  if (p->deflated && p->bytes > p->packed * MOST_TIMES)
    return damaged(archive, name, "its directory says more bytes than its packed ones can hold");
  return PG_OK;
}

static pg_status read_deflated(int fd, const char *archive, const char *name, const pg_place *p, void *host) {
  void *packed = pg_host_calloc((size_t)p->packed + 1, 1);
  pg_status status = packed ? pg_file_read_at(fd, archive, p->offset, packed, p->packed)
                            : pg_error(PG_ERROR_MEMORY, "%s: out of memory", archive);
  if (!status) status = inflate_all(archive, name, packed, p->packed, host, p->bytes);
  pg_host_free(packed);
  return status;
}

/* From an archive that is open and so large. */
static pg_status read_member(int fd, int64_t size, const char *archive, const char *name, const pg_place *p,
                             void *host) {
  pg_status status = check_place(archive, name, p, size);
  if (status) return status;
  status = p->deflated ? read_deflated(fd, archive, name, p, host)
                       : pg_file_read_at(fd, archive, p->offset, host, p->bytes);
  if (!status && p->summed && pg_crc32(0, host, p->bytes) != p->crc)
    status = damaged(archive, name, "its bytes have another CRC-32 than its directory says");
  return status;
}

pg_status pg_member_read(const char *archive, const char *name, const pg_place *place, void *host) {
  int64_t size = 0;
  int fd = pg_file_open(archive, &size);
  if (fd < 0) return PG_ERROR_IO;
  pg_status status = read_member(fd, size, archive, name, place, host);
  close(fd);
  return status;
}

/* ---- describing ---- */

/* Where each of `count` zero-terminated names begins. */
static pg_status name_places(uint32_t **out, int64_t count, const char *names, int64_t bytes) {
  if (bytes < 1 || bytes > UINT32_MAX || names[bytes - 1])
    return pg_error(PG_ERROR_ARGUMENT, "loader: names of %lld bytes; they are zero-terminated and at most 4 GiB",
                    (long long)bytes);
  int64_t found = 0;
  for (int64_t k = 0; k < bytes; k += (int64_t)strlen(names + k) + 1) found++;
  if (found != count)
    return pg_error(PG_ERROR_ARGUMENT, "loader: %lld file names for %lld samples", (long long)found, (long long)count);
  uint32_t *at = *out = pg_host_calloc((size_t)count, sizeof *at);
  if (!at) return pg_error(PG_ERROR_MEMORY, "loader: out of memory");
  int64_t n = 0;
  for (int64_t k = 0; k < bytes; k += (int64_t)strlen(names + k) + 1) at[n++] = (uint32_t)k;
  return PG_OK;
}

pg_status pg_field_names(pg_field *f, int64_t count, const char *folder, const char *names, int64_t names_bytes) {
  f->kind = PG_FIELD_FILES;
  pg_status status = name_places(&f->name_at, count, names, names_bytes);
  if (status) return status;
  f->path = pg_field_copy(folder, strlen(folder));
  f->names = pg_field_copy(names, (size_t)names_bytes);
  return f->path && f->names ? PG_OK : PG_ERROR_MEMORY;
}

static pg_status keep_places(pg_place **out, int64_t count, const pg_place *places, int n_archives) {
  for (int64_t k = 0; k < count; k++)
    if (places[k].archive < 0 || places[k].archive >= n_archives)
      return pg_error(PG_ERROR_ARGUMENT, "loader: sample %lld lies in archive %d of %d", (long long)k,
                      (int)places[k].archive, n_archives);
  *out = (pg_place *)pg_field_copy((const char *)places, (size_t)count * sizeof *places);
  return *out ? PG_OK : PG_ERROR_MEMORY;
}

pg_status pg_field_archives(pg_field *f, int64_t count, const char *archives, int64_t bytes, int n,
                            const pg_place *places) {
  if (f->kind < PG_FIELD_FILES || f->archives)
    return pg_error(PG_ERROR_ARGUMENT, "loader: archives belong to a field of files, once");
  pg_status status = name_places(&f->archive_at, n, archives, bytes);
  if (status) return status;
  f->archives = pg_field_copy(archives, (size_t)bytes);
  f->n_archives = n;
  return f->archives ? keep_places(&f->places, count, places, n) : PG_ERROR_MEMORY;
}

pg_status pg_field_mirrored(pg_field *f, int64_t count, const char *folder, const pg_place *places) {
  if (f->kind < PG_FIELD_FILES || (f->archives ? !places : !folder))
    return pg_error(PG_ERROR_ARGUMENT, "loader: mirror images lie in a folder or in archives, as the field's files do");
  if (f->archives) return keep_places(&f->mirrored_places, count, places, f->n_archives);
  f->mirrored_path = pg_field_copy(folder, strlen(folder));
  return f->mirrored_path ? PG_OK : PG_ERROR_MEMORY;
}

void pg_field_members_free(pg_field *f) {
  pg_host_free(f->path);
  pg_host_free(f->mirrored_path);
  pg_host_free(f->names);
  pg_host_free(f->name_at);
  pg_host_free(f->archives);
  pg_host_free(f->archive_at);
  pg_host_free(f->places);
  pg_host_free(f->mirrored_places);
}

/* ---- reading ---- */

pg_status pg_field_path(const pg_field *f, int64_t index, bool mirrored, char path[PATH_MAX]) {
  const char *name = f->names + f->name_at[index], *folder = mirrored && f->mirrored_path ? f->mirrored_path : f->path;
  int length = snprintf(path, PATH_MAX, folder[0] ? "%s/%s" : "%s%s", folder, name);
  return length < PATH_MAX ? PG_OK : pg_error(PG_ERROR_IO, "%.200s...: the path is too long", path);
}

static const pg_place *place_of(const pg_field *f, int64_t index, bool mirrored) {
  return (mirrored && f->mirrored_places ? f->mirrored_places : f->places) + index;
}

static const char *archive_of(const pg_field *f, const pg_place *place) {
  return f->archives + f->archive_at[place->archive];
}

/* What a member is called, or its number where it has no name. */
static const char *member_name(const pg_field *f, int64_t index, char number[32]) {
  const char *name = f->names + f->name_at[index];
  snprintf(number, 32, "sample %lld", (long long)index);
  return *name ? name : number;
}

void pg_field_label(const pg_field *f, int64_t index, bool mirrored, char label[PATH_MAX]) {
  char number[32];
  if (f->archives)
    snprintf(label, PATH_MAX, "%s: %s", archive_of(f, place_of(f, index, mirrored)), member_name(f, index, number));
  else if (f->names) pg_field_path(f, index, mirrored, label);
  else snprintf(label, PATH_MAX, "%s", f->path ? f->path : "");
}

pg_status pg_field_member(const pg_field *f, int64_t index, bool mirrored, char label[PATH_MAX], char **bytes,
                          int64_t *size) {
  const pg_place *place = place_of(f, index, mirrored);
  char number[32];
  const char *archive = archive_of(f, place), *name = member_name(f, index, number);
  int64_t all = 0;
  pg_field_label(f, index, mirrored, label);
  int fd = pg_file_open(archive, &all);
  if (fd < 0) return PG_ERROR_IO;
  pg_status status = check_place(archive, name, place, all);
  if (!status && place->bytes > PG_MEMBER_MAX_BYTES) status = damaged(archive, name, "it is larger than 1 GiB");
  if (!status && !(*bytes = pg_host_calloc((size_t)place->bytes + 1, 1)))
    status = pg_error(PG_ERROR_MEMORY, "%s: out of memory", archive);
  if (!status) status = read_member(fd, all, archive, name, place, *bytes);
  *size = place->bytes;
  close(fd);
  return status;
}
