/* What a file is, by how it begins: for messages about files of another kind than was expected. */
#include <string.h>

#include "internal.h"

#define CONVERT "perigee inspect says what it holds, perigee import converts weights"
#define TO_PNG "convert it to PNG"

typedef struct kind {
  int at; /* where its mark stands */
  int length;
  const char *mark, *text;
} kind;

#define KIND(at, mark, text) {at, sizeof(mark) - 1, mark, text}

/* Marks; the first that fits. */
static const kind kinds[] = {
    KIND(0, "\x89PNG\r\n\x1a\n", "a PNG picture"),
    KIND(0, "\x93NUMPY", "a .npy array"),
    KIND(0, "\xff\xd8\xff", "a JPEG picture"),
    KIND(0, "GIF8", "a GIF picture; " TO_PNG),
    KIND(8, "WEBP", "a WebP picture"),
    KIND(0, "II*\0", "a TIFF picture; " TO_PNG),
    KIND(0, "MM\0*", "a TIFF picture; " TO_PNG),
    KIND(0, "version https://git-lfs", "a Git LFS pointer, not the file itself; fetch the file with git lfs pull"),
    KIND(0, "\x1f\x8b", "compressed with gzip; unpack it with gunzip"),
    KIND(0, "\xfd" "7zXZ", "compressed with xz; unpack it with unxz"),
    KIND(0, "\x28\xb5\x2f\xfd", "compressed with zstd; unpack it with unzstd"),
    KIND(0, "BZh", "compressed with bzip2; unpack it with bunzip2"),
    KIND(257, "ustar", "a tar archive; unpack it with tar -xf"),
    KIND(0, "\x89HDF\r\n", "an HDF5 file; save its arrays as .npy or .safetensors"),
    KIND(0, "GGUF", "a GGUF file; take the model's .safetensors file"),
    KIND(0, "\x80\x02", "a Python pickle, as older .pth files are; " CONVERT),
    KIND(0, "\x80\x03", "a Python pickle; " CONVERT),
    KIND(0, "\x80\x04", "a Python pickle; " CONVERT),
    KIND(0, "\x80\x05", "a Python pickle; " CONVERT),
};

static bool holds(const char *bytes, int64_t n, const char *word) {
  return memmem(bytes, (size_t)n, word, strlen(word)) != NULL;
}

static const char *of_zip(const char *bytes, int64_t n) {
  if (holds(bytes, n, "data.pkl") || holds(bytes, n, "/version") || holds(bytes, n, ".pkl"))
    return "PyTorch's format (.pt, .pth); " CONVERT;
  if (holds(bytes, n, ".npy")) return "an .npz archive; save the one array that is wanted with numpy.save";
  return "a zip archive; unpack it";
}

static const char *of_json(const char *bytes, int64_t n) {
  if (holds(bytes, n, "\"weight_map\""))
    return "the index of a model in several files; " CONVERT;
  return "a JSON text";
}

static bool is_safetensors(const unsigned char *bytes, int64_t n) {
  uint64_t length = 0;
  for (int k = 7; k >= 0 && n > 8; k--) length = length << 8 | bytes[k];
  return n > 8 && bytes[8] == '{' && length >= 2 && length <= 100000000;
}

static bool is_html(const char *bytes, int64_t n) {
  int64_t at = 0;
  while (at < n && strchr(" \t\r\n\xef\xbb\xbf", bytes[at]) && bytes[at]) at++;
  return n - at > 9 && (!strncasecmp(bytes + at, "<!doctype", 9) || !strncasecmp(bytes + at, "<html", 5));
}

const char *pg_file_recognise(const void *beginning, int64_t n) {
  const char *bytes = beginning;
  if (n == 0) return "empty; its download or copy did not finish";
  if (is_safetensors(beginning, n)) return "a safetensors file";
  if (n >= 4 && !memcmp(bytes, "PK\3\4", 4)) return of_zip(bytes, n);
  if (is_html(bytes, n))
    return "an HTML page, as servers send in place of a file that needs a login or is gone; download it again";
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
    if (n >= kinds[k].at + kinds[k].length && !memcmp(bytes + kinds[k].at, kinds[k].mark, (size_t)kinds[k].length))
      return kinds[k].text;
  if (bytes[0] == '{' || bytes[0] == '[') return of_json(bytes, n);
  int64_t zeros = 0;
  while (zeros < n && !bytes[zeros]) zeros++;
  return n >= 64 && zeros == n ? "zeros, from its first byte on; its content is lost, so copy it again" : NULL;
}
