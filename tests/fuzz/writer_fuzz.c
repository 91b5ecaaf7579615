/* Writers (runtime/files.c): any order of writes, reads, sums, cuts and pauses leaves the bytes that it leaves in an
 * array, and an abort leaves the file that was there. */
#include <sys/stat.h>

#include "fuzz.h"

enum { MOST = 1 << 14 };

static char folder[64], path[80];

static void remove_folder(void) {
  char part[96];
  snprintf(part, sizeof part, "%s.part", path);
  unlink(path);
  unlink(part);
  rmdir(folder);
}

static void expect_file(const uint8_t *bytes, int64_t size) {
  static uint8_t found[MOST];
  int64_t length = -1;
  REQUIRE(!pg_file_size(path, &length) && length == size && !pg_file_read(path, 0, found, size));
  REQUIRE(!memcmp(found, bytes, (size_t)size));
}

/* One operation on the writer and on the array; false: it was suspended, or could not go on. */
static bool operate(pg_writer *w, input *in, uint8_t *model, int64_t *held) {
  static uint8_t out[MOST];
  int kind = take_byte(in) % 6;
  int64_t at = take_number(in), bytes = take_number(in);
  bool inside = at >= 0 && bytes >= 0 && at <= *held && bytes <= *held - at;
  uint32_t sum;
  if (kind <= 1) {
    if (bytes < 0 || bytes > (int64_t)in->left || *held + bytes > MOST) bytes = 0;
    if (kind == 1) inside = at >= 0 && at <= *held && bytes <= *held - at;
    pg_status status = kind ? pg_writer_write_at(w, at, in->at, bytes) : pg_writer_write(w, in->at, bytes);
    REQUIRE(!status == (!kind || inside));
    if (!status) memcpy(model + (kind ? at : *held), in->at, (size_t)bytes);
    if (!kind) *held += bytes;
    in->at += bytes;
    in->left -= (size_t)bytes;
  } else if (kind == 2) {
    REQUIRE(inside == !pg_writer_crc32(w, at, bytes, &sum) && (!inside || sum == pg_crc32(0, model + at, bytes)));
  } else if (kind == 3) {
    if (bytes > MOST) bytes = 0, inside = at >= 0 && at <= *held;
    REQUIRE(inside == !pg_writer_read_at(w, at, out, bytes) && (!inside || !memcmp(out, model + at, (size_t)bytes)));
  } else if (kind == 4) {
    bool shorter = at >= 0 && at <= *held;
    REQUIRE(shorter == !pg_writer_truncate(w, at));
    if (shorter) *held = at;
  } else return false;
  REQUIRE(pg_writer_bytes(w) == *held);
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t model[MOST];
  static const uint8_t before[] = "what was there before";
  if (!folder[0]) {
    snprintf(folder, sizeof folder, "/dev/shm/perigee-fuzz-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/file", folder);
    REQUIRE(!mkdir(folder, 0700));
    atexit(remove_folder);
  }
  input in = {data, size};
  pg_writer *w;
  int64_t held = 0, found = 0;
  bool resumes = take_byte(&in) % 2, commits = take_byte(&in) % 2;
  REQUIRE(!pg_writer_open(&w, path) && !pg_writer_write(w, before, sizeof before) && !pg_writer_commit(w));
  if (resumes) REQUIRE(!pg_writer_resume(&w, path, &found) && found == 0);
  else REQUIRE(!pg_writer_open(&w, path));
  while (in.left) {
    if (operate(w, &in, model, &held) || !resumes) continue;
    REQUIRE(!pg_writer_suspend(w) && !pg_writer_resume(&w, path, &found) && found == held);
  }
  if (!commits) pg_writer_abort(w);
  else REQUIRE(!pg_writer_commit(w));
  if (commits) expect_file(model, held);
  else expect_file(before, sizeof before);
  return 0;
}
