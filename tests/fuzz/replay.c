/* Runs a fuzz target on kept inputs, without libFuzzer: replay FILE-OR-FOLDER... Ends with status 0 and the number. */
#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>

#include "fuzz.h"

static int replayed;

static void replay_file(const char *path) {
  char *bytes = NULL;
  int64_t size = 0;
  if (pg_file_whole(path, &bytes, &size)) {
    fprintf(stderr, "%s\n", pg_last_error());
    exit(1);
  }
  uint8_t *exact = malloc((size_t)size + !size); /* so that a sanitizer sees its end */
  if (!exact) abort();
  memcpy(exact, bytes, (size_t)size);
  pg_host_free(bytes);
  LLVMFuzzerTestOneInput(exact, (size_t)size);
  free(exact);
  replayed++;
}

static void replay(const char *path) {
  struct stat info;
  struct dirent **list;
  if (stat(path, &info) || !S_ISDIR(info.st_mode)) {
    replay_file(path);
    return;
  }
  int n = scandir(path, &list, NULL, alphasort);
  for (int k = 0; k < n; k++) {
    char inner[PATH_MAX];
    snprintf(inner, sizeof inner, "%s/%s", path, list[k]->d_name);
    if (list[k]->d_name[0] != '.') replay_file(inner);
    free(list[k]);
  }
  if (n >= 0) free(list);
}

int main(int n, char **arguments) {
  for (int k = 1; k < n; k++) replay(arguments[k]);
  LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
  printf("%d inputs\n", replayed);
  return 0;
}
