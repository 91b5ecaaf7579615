/* PNG files: every kind of file decodes to 8-bit RGB, malformed ones are errors that name the file. */
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scratch.h"

enum { HEIGHT = 5, WIDTH = 7 };

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t bound) { /* xorshift64 */
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)((random_state >> 16) % bound);
}

/* Writes HEIGHT x WIDTH random samples of a kind with libpng itself, each byte also to `bytes`. */
static void make_png(const char *path, int colour, int depth, int interlaced, uint8_t *bytes) {
  int channels[7] = {1, 0, 3, 1, 2, 0, 4};
  size_t row = (size_t)(WIDTH * channels[colour] * depth + 7) / 8;
  png_byte *rows[HEIGHT];
  for (int y = 0; y < HEIGHT; y++) {
    rows[y] = bytes + (size_t)y * row;
    for (size_t k = 0; k < row; k++) rows[y][k] = (png_byte)random_below(256);
  }
  FILE *file = fopen(path, "wb");
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
  png_infop info = png_create_info_struct(png);
  png_color palette[256];
  png_byte transparent[256];
  for (int k = 0; k < 256; k++) {
    palette[k] = (png_color){(png_byte)k, (png_byte)(255 - k), (png_byte)(k * 7)};
    transparent[k] = (png_byte)k;
  }
  png_init_io(png, file);
  png_set_IHDR(png, info, WIDTH, HEIGHT, depth, colour, interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (colour == PNG_COLOR_TYPE_PALETTE) {
    png_set_PLTE(png, info, palette, 1 << depth);
    png_set_tRNS(png, info, transparent, 1 << depth, NULL);
  }
  png_set_rows(png, info, rows);
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
  png_destroy_write_struct(&png, &info);
  fclose(file);
}

/* The RGB value that sample x of a row in the file stands for. */
static void expected_rgb(const uint8_t *row, int x, int colour, int depth, uint8_t rgb[3]) {
  int channels[7] = {1, 0, 3, 1, 2, 0, 4}, n = channels[colour];
  for (int c = 0; c < 3; c++) {
    int source = n >= 3 ? c : 0, value;
    if (depth == 8) value = row[x * n + source];
    else if (depth == 16) {
      int k = 2 * (x * n + source), wide = row[k] << 8 | row[k + 1];
      value = (wide * 255 + 32895) >> 16; /* to the nearest, as libpng's scale_16 */
    } else {
      int bit = x * depth, raw = (row[bit / 8] >> (8 - depth - bit % 8)) & ((1 << depth) - 1);
      value = colour == PNG_COLOR_TYPE_PALETTE ? raw : raw * 255 / ((1 << depth) - 1);
    }
    if (colour == PNG_COLOR_TYPE_PALETTE) value = c == 0 ? value : c == 1 ? 255 - value : (uint8_t)(value * 7);
    rgb[c] = (uint8_t)value;
  }
}

static void check_kind(int colour, int depth, int interlaced) {
  uint8_t bytes[HEIGHT * WIDTH * 8] = {0}, got[HEIGHT * WIDTH * 3], rgb[3];
  int channels[7] = {1, 0, 3, 1, 2, 0, 4};
  size_t row = (size_t)(WIDTH * channels[colour] * depth + 7) / 8;
  pg_tensor *t;
  make_png(in_folder("a.png"), colour, depth, interlaced, bytes);
  if (pg_picture_load(&t, in_folder("a.png"))) fail_msg("%s", pg_last_error());
  assert_int_equal(pg_tensor_info(t)->shape[0], HEIGHT);
  assert_int_equal(pg_tensor_info(t)->shape[1], WIDTH);
  assert_int_equal(pg_tensor_info(t)->shape[2], 3);
  assert_int_equal(pg_tensor_read(t, got, sizeof got), PG_OK);
  pg_tensor_release(t);
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++) {
      expected_rgb(bytes + (size_t)y * row, x, colour, depth, rgb);
      if (memcmp(rgb, got + (y * WIDTH + x) * 3, 3)) fail_msg("colour %d, depth %d, pixel %d,%d", colour, depth, y, x);
    }
}

static void decodes_every_kind(void **state) {
  (void)state;
  for (int interlaced = 0; interlaced < 2; interlaced++) {
    for (int depth = 1; depth <= 16; depth *= 2) check_kind(PNG_COLOR_TYPE_GRAY, depth, interlaced);
    for (int depth = 1; depth <= 8; depth *= 2) check_kind(PNG_COLOR_TYPE_PALETTE, depth, interlaced);
    for (int depth = 8; depth <= 16; depth *= 2) {
      check_kind(PNG_COLOR_TYPE_RGB, depth, interlaced);
      check_kind(PNG_COLOR_TYPE_RGBA, depth, interlaced);
      check_kind(PNG_COLOR_TYPE_GRAY_ALPHA, depth, interlaced);
    }
  }
}

static pg_tensor *random_picture(int64_t height, int64_t width, int64_t channels) {
  int64_t shape[3] = {height, width, channels};
  pg_tensor *t;
  assert_int_equal(pg_tensor_new(&t, PG_CPU, PG_PURPOSE_OTHER, PG_UINT8, 3, shape), PG_OK);
  uint8_t *pixels = pg_tensor_info(t)->data;
  for (int64_t k = 0; k < height * width * channels; k++) pixels[k] = (uint8_t)random_below(256);
  return t;
}

static void reads_what_it_wrote(void **state) {
  (void)state;
  pg_tensor *picture = random_picture(31, 33, 3), *got;
  assert_int_equal(pg_png_write(in_folder("a.png"), picture), PG_OK);
  assert_int_equal(pg_picture_load(&got, in_folder("a.png")), PG_OK);
  assert_memory_equal(pg_tensor_info(got)->data, pg_tensor_info(picture)->data, 31 * 33 * 3);
  pg_tensor_release(got);
  pg_tensor_release(picture);

  picture = random_picture(3, 1, 1);
  assert_int_equal(pg_png_write(in_folder("a.png"), picture), PG_OK);
  assert_int_equal(pg_picture_load(&got, in_folder("a.png")), PG_OK);
  for (int k = 0; k < 9; k++)
    assert_int_equal(((uint8_t *)pg_tensor_info(got)->data)[k], ((uint8_t *)pg_tensor_info(picture)->data)[k / 3]);
  pg_tensor_release(got);
  pg_tensor_release(picture);
  assert_int_equal(count_files(0), 1);
}

static void refuses_what_is_no_picture(void **state) {
  (void)state;
  pg_tensor *two = random_picture(4, 4, 2);
  assert_int_equal(pg_png_write(in_folder("a.png"), two), PG_ERROR_ARGUMENT);
  assert_message("a.png: a picture is uint8 [H,W,3] or [H,W,1]", "[4,4,2]");
  pg_tensor_release(two);
  assert_int_equal(count_files(0), 0);
}

static void a_full_disk_leaves_the_old_picture(void **state) {
  (void)state;
  pg_tensor *picture = random_picture(64, 64, 3), *got;
  assert_int_equal(pg_png_write(in_folder("a.png"), picture), PG_OK);
  pg_writer_fail_after(5000);
  assert_int_equal(pg_png_write(in_folder("a.png"), picture), PG_ERROR_IO);
  pg_writer_fail_after(-1);
  assert_message("a.png: cannot be written", "No space left");
  assert_int_equal(count_files(0), 1);
  assert_int_equal(pg_picture_load(&got, in_folder("a.png")), PG_OK);
  pg_tensor_release(got);
  pg_tensor_release(picture);
}

static void says_what_is_wrong_with_a_file(void **state) {
  (void)state;
  uint8_t bytes[HEIGHT * WIDTH * 8], content[4096];
  pg_tensor *t;
  make_png(in_folder("a.png"), PNG_COLOR_TYPE_RGB, 8, 0, bytes);
  int64_t size = 0;
  assert_int_equal(pg_file_size(in_folder("a.png"), &size), PG_OK);
  assert_int_equal(pg_file_read(in_folder("a.png"), 0, content, size), PG_OK);

  put_file(in_folder("short.png"), content, (size_t)size / 2);
  assert_int_equal(pg_picture_load(&t, in_folder("short.png")), PG_ERROR_FORMAT);
  assert_message("short.png: not a readable PNG", NULL);
  put_file(in_folder("text.png"), "hello, world", 12);
  assert_int_equal(pg_picture_load(&t, in_folder("text.png")), PG_ERROR_FORMAT);
  assert_message("text.png: not a picture that can be read", NULL);
  put_file(in_folder("empty.png"), "", 0);
  assert_int_equal(pg_picture_load(&t, in_folder("empty.png")), PG_ERROR_FORMAT);
  assert_int_equal(pg_picture_load(&t, in_folder("none.png")), PG_ERROR_IO);
  assert_message("none.png: cannot be opened", "No such file");
  assert_int_equal(pg_picture_load(&t, folder), PG_ERROR_IO);

  uint32_t sides[2] = {0x7fffffff, 0x7fffffff}; /* a header of 2^31 x 2^31 with the right checksum */
  for (int k = 0; k < 8; k++) content[16 + k] = (uint8_t)(sides[k / 4] >> (24 - k % 4 * 8));
  uint32_t crc = 0xffffffff;
  for (int k = 12; k < 29; k++) {
    crc ^= content[k];
    for (int b = 0; b < 8; b++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
  }
  for (int k = 0; k < 4; k++) content[29 + k] = (uint8_t)(~crc >> (24 - k * 8));
  put_file(in_folder("huge.png"), content, (size_t)size);
  assert_int_equal(pg_picture_load(&t, in_folder("huge.png")), PG_ERROR_FORMAT);
  assert_message("huge.png: not a readable PNG", NULL);
  assert_null(t);
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  pg_tensor *picture = random_picture(9, 9, 3), *got;
  int reading = 0, writing = 0;
  for (pg_status status = PG_ERROR_MEMORY; status; writing++) {
    pg_memory_fail_after(writing);
    status = pg_png_write(in_folder("a.png"), picture);
    pg_memory_fail_after(-1);
    assert_true(status == PG_OK || status == PG_ERROR_MEMORY);
  }
  for (pg_status status = PG_ERROR_MEMORY; status; reading++) {
    pg_memory_fail_after(reading);
    status = pg_picture_load(&got, in_folder("a.png"));
    pg_memory_fail_after(-1);
    assert_true(status == PG_OK || status == PG_ERROR_MEMORY);
  }
  pg_tensor_release(got);
  pg_tensor_release(picture);
  assert_true(reading > 5 && writing > 5);
  assert_int_equal(count_files(0), 1);
}

enum { KINDS = 8, ROOM = 8192 };

/* Changes, cuts or doubles some bytes; returns the new size. */
static uint32_t mutate(uint8_t *content, uint32_t size) {
  for (uint32_t change = random_below(4) + 1; change > 0; change--) {
    uint32_t at = random_below(size), length = random_below(size - at) + 1;
    switch (random_below(8)) {
    case 0: size = at + 1; break;
    case 1:
      if (size + length > ROOM) break;
      memmove(content + at + length, content + at, size - at);
      size += length;
      break;
    case 2: content[at] = (uint8_t)random_below(256); break;
    default: content[at] ^= (uint8_t)(1 << random_below(8));
    }
  }
  return size;
}

/* Each file is read or refused, nothing else (run under AddressSanitizer). */
static void survives_mutations(void **state) {
  (void)state;
  int colours[4] = {PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_PALETTE, PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_RGBA}, read = 0;
  uint8_t bytes[HEIGHT * WIDTH * 8], originals[KINDS][ROOM], content[ROOM];
  int64_t sizes[KINDS];
  for (int k = 0; k < KINDS; k++) {
    make_png(in_folder("a.png"), colours[k % 4], 8, k / 4, bytes);
    assert_int_equal(pg_file_size(in_folder("a.png"), &sizes[k]), PG_OK);
    assert_int_equal(pg_file_read(in_folder("a.png"), 0, originals[k], sizes[k]), PG_OK);
  }
  for (int k = 0; k < 10000; k++) {
    pg_tensor *t;
    memcpy(content, originals[k % KINDS], ROOM);
    put_file(in_folder("b.png"), content, mutate(content, (uint32_t)sizes[k % KINDS]));
    pg_status status = pg_picture_load(&t, in_folder("b.png"));
    assert_true(status == PG_OK || status == PG_ERROR_FORMAT);
    read += status == PG_OK;
    pg_tensor_release(t);
  }
  assert_in_range(read, 100, 9900);
}

int main(void) {
#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      WITH_FOLDER(decodes_every_kind),
      WITH_FOLDER(reads_what_it_wrote),
      WITH_FOLDER(refuses_what_is_no_picture),
      WITH_FOLDER(a_full_disk_leaves_the_old_picture),
      WITH_FOLDER(says_what_is_wrong_with_a_file),
      WITH_FOLDER(every_allocation_may_fail),
      WITH_FOLDER(survives_mutations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
