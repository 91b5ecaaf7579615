/* A folder for a test's files, removed with them, and checks on what lies in it. cmocka's headers come first. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"

static char folder[64];

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/perigee-test-XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

/* The number of files in the folder; removes them if asked to. */
static int count_files(int and_remove) {
  int count = 0;
  char path[512];
  DIR *directory = opendir(folder);
  for (struct dirent *entry; directory && (entry = readdir(directory));) {
    if (entry->d_name[0] == '.') continue;
    count++;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (and_remove) unlink(path);
  }
  closedir(directory);
  return count;
}

static int remove_folder(void **state) {
  (void)state;
  count_files(1);
  return rmdir(folder);
}

/* FOLDER/name in one of a few rotating buffers. */
static const char *in_folder(const char *name) {
  static char paths[4][256];
  static int next;
  char *path = paths[next = (next + 1) % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static void put_file(const char *path, const void *bytes, size_t count) {
  unlink(path); /* some file systems flush a file that is truncated and written anew */
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, count, file), count);
  fclose(file);
}

/* The last error mentions both texts; the second may be NULL. */
static void assert_message(const char *first, const char *second) {
  if (!strstr(pg_last_error(), first)) fail_msg("'%s' is not in: %s", first, pg_last_error());
  if (second && !strstr(pg_last_error(), second)) fail_msg("'%s' is not in: %s", second, pg_last_error());
}
