/* Bulk reads at checked offsets, and writers whose file appears whole or not at all. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"

static void reads_a_range(void **state) {
  (void)state;
  const char *path = in_folder("ten");
  char got[5] = "....";
  int64_t bytes = 0;
  put_file(path, "0123456789", 10);
  assert_int_equal(pg_file_size(path, &bytes), PG_OK);
  assert_int_equal(bytes, 10);
  assert_int_equal(pg_file_read(path, 3, got, 4), PG_OK);
  assert_string_equal(got, "3456");
  assert_int_equal(pg_file_read(path, 10, got, 0), PG_OK);
}

static void fills_a_tensor(void **state) {
  (void)state;
  float values[7] = {0, 1, 2, 3, 4, 5, 6}, got[6];
  int64_t shape[2] = {2, 3};
  pg_tensor *t;
  put_file(in_folder("floats"), values, sizeof values);
  assert_int_equal(pg_tensor_new(&t, PG_CPU, PG_PURPOSE_OTHER, PG_FLOAT32, 2, shape), PG_OK);
  assert_int_equal(pg_file_read_tensor(in_folder("floats"), 4, t, NULL), PG_OK);
  assert_int_equal(pg_tensor_read(t, got, sizeof got), PG_OK);
  assert_memory_equal(got, values + 1, sizeof got);
  assert_int_equal(pg_file_read_tensor(in_folder("floats"), 8, t, NULL), PG_ERROR_FORMAT);
  assert_message("floats: 24 bytes at offset 8", "28 bytes");
  pg_tensor_release(t);
}

static void says_what_is_wrong_with_a_range(void **state) {
  (void)state;
  char got[16];
  put_file(in_folder("ten"), "0123456789", 10);
  assert_int_equal(pg_file_read(in_folder("ten"), 5, got, 6), PG_ERROR_FORMAT);
  assert_message("ten: 6 bytes at offset 5", "has 10 bytes");
  assert_int_equal(pg_file_read(in_folder("ten"), INT64_MAX, got, INT64_MAX), PG_ERROR_FORMAT);
  assert_int_equal(pg_file_read(in_folder("ten"), -1, got, 1), PG_ERROR_ARGUMENT);
  assert_int_equal(pg_file_read(in_folder("ten"), 0, got, -1), PG_ERROR_ARGUMENT);
  assert_int_equal(pg_file_read(in_folder("none"), 0, got, 1), PG_ERROR_IO);
  assert_message("none: cannot be opened", "No such file");
  assert_int_equal(pg_file_read(folder, 0, got, 1), PG_ERROR_IO);
  assert_message("not a regular file", NULL);
}

static void assert_content(const char *path, const char *expected) {
  char got[64] = "";
  int64_t bytes = 0;
  assert_int_equal(pg_file_size(path, &bytes), PG_OK);
  assert_int_equal(bytes, strlen(expected));
  assert_int_equal(pg_file_read(path, 0, got, bytes), PG_OK);
  assert_string_equal(got, expected);
}

static void commits_whole_files(void **state) {
  (void)state;
  pg_writer *w;
  put_file(in_folder("file"), "old", 3);
  assert_int_equal(pg_writer_open(&w, in_folder("file")), PG_OK);
  assert_int_equal(pg_writer_write(w, "hello ", 6), PG_OK);
  assert_int_equal(pg_writer_write(w, "world", 5), PG_OK);
  assert_int_equal(pg_writer_write_at(w, 0, "J", 1), PG_OK);
  assert_int_equal(pg_writer_bytes(w), 11);
  assert_content(in_folder("file"), "old");
  assert_int_equal(pg_writer_commit(w), PG_OK);
  assert_content(in_folder("file"), "Jello world");
  assert_int_equal(count_files(0), 1);
}

static void abort_leaves_the_old_file(void **state) {
  (void)state;
  pg_writer *w;
  put_file(in_folder("file"), "old", 3);
  assert_int_equal(pg_writer_open(&w, in_folder("file")), PG_OK);
  assert_int_equal(pg_writer_write(w, "new", 3), PG_OK);
  pg_writer_abort(w);
  assert_content(in_folder("file"), "old");
  assert_int_equal(count_files(0), 1);
}

static void no_folder_no_file(void **state) {
  (void)state;
  pg_writer *w;
  assert_int_equal(pg_writer_open(&w, in_folder("none/file")), PG_ERROR_IO);
  assert_message("none/file: cannot be written", "No such file");
  assert_null(w);
}

static void writes_tensors(void **state) {
  (void)state;
  float values[3] = {1, 2, 3}, got[3];
  int64_t shape[1] = {3};
  pg_tensor *t;
  pg_writer *w;
  assert_int_equal(pg_tensor_new(&t, PG_CPU, PG_PURPOSE_OTHER, PG_FLOAT32, 1, shape), PG_OK);
  assert_int_equal(pg_tensor_write(t, values, sizeof values), PG_OK);
  assert_int_equal(pg_writer_open(&w, in_folder("tensor")), PG_OK);
  assert_int_equal(pg_writer_write_tensor(w, t, NULL), PG_OK);
  assert_int_equal(pg_writer_commit(w), PG_OK);
  assert_int_equal(pg_file_read(in_folder("tensor"), 0, got, sizeof got), PG_OK);
  assert_memory_equal(got, values, sizeof got);
  pg_tensor_release(t);
}

/* A failed write: the error names the file, nothing more is written, the old file stays, no temporary one does. */
static void assert_fails_cleanly(pg_writer *w, const char *reason) {
  char bytes[4096] = "";
  pg_status status = PG_OK;
  for (int k = 0; k < 8 && !status; k++) status = pg_writer_write(w, bytes, sizeof bytes);
  assert_int_equal(status, PG_ERROR_IO);
  assert_message("file: cannot be written", reason);
  assert_int_equal(pg_writer_write(w, bytes, 1), PG_ERROR_IO);
  assert_int_equal(pg_writer_commit(w), PG_ERROR_IO);
  assert_message("file: an earlier write failed", NULL);
  assert_content(in_folder("file"), "old");
  assert_int_equal(count_files(0), 1);
}

static void a_full_disk_spoils_nothing(void **state) {
  (void)state;
  pg_writer *w;
  put_file(in_folder("file"), "old", 3);
  assert_int_equal(pg_writer_open(&w, in_folder("file")), PG_OK);
  pg_writer_fail_after(10000);
  assert_fails_cleanly(w, "No space left on device");
  pg_writer_fail_after(-1);
}

static void a_refusing_system_spoils_nothing(void **state) {
  (void)state;
  pg_writer *w;
  struct rlimit old, small;
  put_file(in_folder("file"), "old", 3);
  assert_int_equal(pg_writer_open(&w, in_folder("file")), PG_OK);
  signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 10000;
  setrlimit(RLIMIT_FSIZE, &small);
  assert_fails_cleanly(w, "File too large");
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_DFL);
}

static void resumes_where_it_was(void **state) {
  (void)state;
  pg_writer *w, *second;
  int64_t bytes = -1;
  uint32_t crc = 0;
  char got[4] = "";
  assert_int_equal(pg_writer_resume(&w, in_folder("file"), &bytes), PG_OK);
  assert_int_equal(bytes, 0);
  assert_int_equal(pg_writer_write(w, "12345xyz", 8), PG_OK);
  assert_int_equal(pg_writer_resume(&second, in_folder("file"), &bytes), PG_ERROR_IO);
  assert_message("file.part: another process writes it", NULL);
  assert_int_equal(pg_writer_suspend(w), PG_OK);
  assert_int_equal(pg_writer_resume(&w, in_folder("file"), &bytes), PG_OK);
  assert_int_equal(bytes, 8);
  assert_int_equal(pg_writer_truncate(w, 5), PG_OK);
  assert_int_equal(pg_writer_write(w, "6789", 4), PG_OK);
  assert_int_equal(pg_writer_read_at(w, 4, got, 3), PG_OK);
  assert_string_equal(got, "567");
  assert_int_equal(pg_writer_crc32(w, 0, 9, &crc), PG_OK);
  assert_int_equal(crc, 0xCBF43926); /* the standard check value of CRC-32 */
  assert_int_equal(pg_writer_crc32(w, 0, 10, &crc), PG_ERROR_ARGUMENT);
  assert_int_equal(pg_writer_write_at(w, 8, "xx", 2), PG_ERROR_ARGUMENT);
  assert_int_equal(pg_writer_commit(w), PG_OK);
  assert_content(in_folder("file"), "123456789");
  assert_int_equal(count_files(0), 1);
}

static void one_process_holds_a_lock(void **state) {
  (void)state;
  pg_lock *first, *second;
  int64_t holder = -1;
  assert_int_equal(pg_lock_take(&first, in_folder("lock"), &holder), PG_OK);
  assert_non_null(first);
  assert_int_equal(pg_lock_take(&second, in_folder("lock"), &holder), PG_OK);
  assert_null(second);
  assert_int_equal(holder, getpid());
  pg_lock_free(first);
  int ready[2];
  assert_int_equal(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) { /* takes it, and is killed */
    if (pg_lock_take(&first, in_folder("lock"), &holder) || !first || write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  char byte;
  assert_int_equal(read(ready[0], &byte, 1), 1);
  assert_int_equal(pg_lock_take(&second, in_folder("lock"), &holder), PG_OK);
  assert_null(second);
  assert_int_equal(holder, child);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  close(ready[0]);
  close(ready[1]);
  assert_int_equal(pg_lock_take(&second, in_folder("lock"), &holder), PG_OK);
  assert_non_null(second);
  pg_lock_free(second);
  assert_int_equal(pg_lock_take(&first, in_folder("no/lock"), &holder), PG_ERROR_IO);
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  int failures = 0;
  for (int64_t n = 0; n < 20; n++) {
    pg_writer *w;
    uint32_t crc;
    pg_memory_fail_after(n);
    pg_status status = pg_writer_open(&w, in_folder("file"));
    if (!status) {
      status = pg_writer_write(w, "x", 1);
      if (!status) status = pg_writer_crc32(w, 0, 1, &crc);
      pg_writer_abort(w);
    }
    pg_memory_fail_after(-1);
    if (status) failures++, assert_int_equal(status, PG_ERROR_MEMORY);
    else break;
  }
  assert_int_equal(failures, 4);
  assert_int_equal(count_files(0), 0);
}

int main(void) {
#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      WITH_FOLDER(reads_a_range),
      WITH_FOLDER(fills_a_tensor),
      WITH_FOLDER(says_what_is_wrong_with_a_range),
      WITH_FOLDER(commits_whole_files),
      WITH_FOLDER(abort_leaves_the_old_file),
      WITH_FOLDER(no_folder_no_file),
      WITH_FOLDER(writes_tensors),
      WITH_FOLDER(a_full_disk_spoils_nothing),
      WITH_FOLDER(a_refusing_system_spoils_nothing),
      WITH_FOLDER(resumes_where_it_was),
      WITH_FOLDER(one_process_holds_a_lock),
      WITH_FOLDER(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
