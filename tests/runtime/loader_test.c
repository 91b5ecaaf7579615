/* The loader: order, augmentation, restarts, errors in workers; the same batches for any number of threads. Also run
 * under ThreadSanitizer (-DPERIGEE_TSAN=ON). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "philox.h"
#include "scratch.h"

enum { COUNT = 23, BATCH = 7, SIDE = 6, PIXELS = SIDE * SIDE * 3 };

/* Known answers of Random123 1.09, kat_vectors. */
static void philox_is_philox(void **state) {
  (void)state;
  const uint32_t ones = 0xffffffff;
  const uint32_t cases[3][10] = {{0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                 {ones, ones, ones, ones, ones, ones, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                 {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
                                  0x94fdcceb, 0x5001e420, 0x24126ea1}};
  for (int k = 0; k < 3; k++) {
    uint32_t out[4];
    pg_philox(cases[k], cases[k] + 4, out);
    assert_memory_equal(out, cases[k] + 6, sizeof out);
  }
}

static pg_tensor *new_tensor(int dtype, int ndim, int64_t a, int64_t b, int64_t c, int64_t d) {
  int64_t shape[4] = {a, b, c, d};
  pg_tensor *t;
  assert_int_equal(pg_tensor_new(&t, PG_CPU, PG_PURPOSE_DATA, dtype, ndim, shape), PG_OK);
  return t;
}

static void *data_of(pg_tensor *t) { return pg_tensor_info(t)->data; }

/* Pixel k of sample i. */
static uint8_t pixel(int64_t i, int64_t k) { return (uint8_t)(i * 31 + k * 7 + 1); }

/* uint8 [COUNT,SIDE,SIDE,3] and int64 [COUNT], label of sample i being 1000 + i. */
static void make_data(pg_tensor **images, pg_tensor **labels) {
  *images = new_tensor(PG_UINT8, 4, COUNT, SIDE, SIDE, 3);
  *labels = new_tensor(PG_INT64, 1, COUNT, 0, 0, 0);
  for (int64_t i = 0; i < COUNT; i++) {
    for (int64_t k = 0; k < PIXELS; k++) ((uint8_t *)data_of(*images))[i * PIXELS + k] = pixel(i, k);
    ((int64_t *)data_of(*labels))[i] = 1000 + i;
  }
}

static pg_loader_options plain_options(void) {
  return (pg_loader_options){.count = COUNT, .batch = BATCH, .seed = 42, .shuffle = 1, .threads = 2, .depth = 3};
}

/* A loader over memory with the fields images and labels. */
static pg_loader *memory_loader(const pg_loader_options *options) {
  pg_loader *l;
  pg_tensor *images, *labels;
  make_data(&images, &labels);
  assert_int_equal(pg_loader_new(&l, options), PG_OK);
  assert_int_equal(pg_loader_add_tensor(l, images, 1), PG_OK);
  assert_int_equal(pg_loader_add_tensor(l, labels, 0), PG_OK);
  pg_tensor_release(images);
  pg_tensor_release(labels);
  return l;
}

typedef struct batch {
  pg_tensor *fields[2], *indices; /* uint8 [BATCH,SIDE,SIDE,3], int64 [BATCH], int64 [BATCH] */
} batch;

static batch new_batch(void) {
  return (batch){{new_tensor(PG_UINT8, 4, BATCH, SIDE, SIDE, 3), new_tensor(PG_INT64, 1, BATCH, 0, 0, 0)},
                 new_tensor(PG_INT64, 1, BATCH, 0, 0, 0)};
}

static void free_batch(batch *b) {
  pg_tensor_release(b->fields[0]);
  pg_tensor_release(b->fields[1]);
  pg_tensor_release(b->indices);
}

/* The next batch; checks its step. */
static void next(pg_loader *l, batch *b, int64_t expected_step) {
  int64_t step = -1;
  if (pg_loader_next(l, 2, b->fields, b->indices, &step)) fail_msg("%s", pg_last_error());
  assert_int_equal(step, expected_step);
}

static void every_epoch_is_a_permutation(void **state) {
  (void)state;
  pg_loader_options options = plain_options();
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  int64_t order[COUNT * BATCH];
  for (int64_t step = 0; step < COUNT; step++) { /* COUNT batches are BATCH epochs */
    next(l, &b, step);
    int64_t *indices = data_of(b.indices), *labels = data_of(b.fields[1]);
    for (int64_t k = 0; k < BATCH; k++) {
      order[step * BATCH + k] = indices[k];
      assert_int_equal(labels[k], 1000 + indices[k]);
      for (int64_t p = 0; p < PIXELS; p++)
        assert_int_equal(((uint8_t *)data_of(b.fields[0]))[k * PIXELS + p], pixel(indices[k], p));
    }
  }
  int moved = 0, differ = 0;
  for (int64_t epoch = 0; epoch < BATCH; epoch++) {
    int seen[COUNT] = {0};
    for (int64_t k = 0; k < COUNT; k++) {
      seen[order[epoch * COUNT + k]]++;
      moved += order[epoch * COUNT + k] != k;
      differ += order[epoch * COUNT + k] != order[k];
    }
    for (int k = 0; k < COUNT; k++) assert_int_equal(seen[k], 1);
  }
  assert_true(moved > COUNT * BATCH / 2 && differ > COUNT * BATCH / 2);
  free_batch(&b);
  pg_loader_free(l);
}

static void without_shuffle_the_order_is_the_data_s(void **state) {
  (void)state;
  pg_loader_options options = plain_options();
  options.shuffle = 0;
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  for (int64_t step = 0; step < 5; step++) {
    next(l, &b, step);
    for (int64_t k = 0; k < BATCH; k++)
      assert_int_equal(((int64_t *)data_of(b.indices))[k], (step * BATCH + k) % COUNT);
  }
  free_batch(&b);
  pg_loader_free(l);
}

/* Reads steps first ... last of a loader with `threads` and compares them with `expected` (one row a step). */
static void run(pg_loader_options options, int threads, int64_t first, int64_t last, uint8_t *images, int64_t *indices,
                int compare) {
  options.threads = threads;
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  assert_int_equal(pg_loader_seek(l, first), PG_OK);
  for (int64_t step = first; step <= last; step++) {
    next(l, &b, step);
    if (compare) {
      assert_memory_equal(data_of(b.fields[0]), images + step * BATCH * PIXELS, BATCH * PIXELS);
      assert_memory_equal(data_of(b.indices), indices + step * BATCH, BATCH * sizeof *indices);
    } else {
      memcpy(images + step * BATCH * PIXELS, data_of(b.fields[0]), BATCH * PIXELS);
      memcpy(indices + step * BATCH, data_of(b.indices), BATCH * sizeof *indices);
    }
  }
  free_batch(&b);
  pg_loader_free(l);
}

static void threads_and_restarts_change_nothing(void **state) {
  (void)state;
  enum { STEPS = 12 };
  static uint8_t images[STEPS * BATCH * PIXELS];
  static int64_t indices[STEPS * BATCH];
  pg_loader_options options = plain_options();
  options.flip = 1;
  options.crop_padding = 2;
  run(options, 0, 0, STEPS - 1, images, indices, 0);
  for (int threads = 1; threads <= 8; threads *= 2) run(options, threads, 0, STEPS - 1, images, indices, 1);
  for (int64_t first = 0; first < STEPS; first++) run(options, 3, first, STEPS - 1, images, indices, 1);
}

static void seeking_works_at_any_time(void **state) {
  (void)state;
  pg_loader_options options = plain_options();
  options.threads = 4;
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  int64_t first[BATCH];
  next(l, &b, 0);
  memcpy(first, data_of(b.indices), sizeof first);
  for (int64_t k = 0; k < 200; k++) {
    assert_int_equal(pg_loader_seek(l, k * 37 % 11), PG_OK);
    if (k % 3) next(l, &b, k * 37 % 11);
  }
  assert_int_equal(pg_loader_seek(l, 0), PG_OK);
  next(l, &b, 0);
  assert_memory_equal(first, data_of(b.indices), sizeof first);
  assert_int_equal(pg_loader_seek(l, -1), PG_ERROR_ARGUMENT);
  assert_int_equal(pg_loader_seek(l, INT64_MAX), PG_ERROR_ARGUMENT);
  next(l, &b, 1);
  free_batch(&b);
  pg_loader_free(l);
}

/* What a sample must be, given a flip and a shift. */
static int is_augmented(const uint8_t *got, int64_t i, int flip, int down, int right) {
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++)
      for (int c = 0; c < 3; c++) {
        int sy = y - down, sx = x - right, inside = sy >= 0 && sy < SIDE && sx >= 0 && sx < SIDE;
        if (flip) sx = SIDE - 1 - sx;
        if (got[(y * SIDE + x) * 3 + c] != (inside ? pixel(i, (sy * SIDE + sx) * 3 + c) : 0)) return 0;
      }
  return 1;
}

static void augments(void **state) {
  (void)state;
  enum { PADDING = 2, STEPS = 100 };
  pg_loader_options options = plain_options();
  options.flip = 1;
  options.crop_padding = PADDING;
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  int flips = 0, seen[5][5] = {{0}};
  for (int64_t step = 0; step < STEPS; step++) {
    next(l, &b, step);
    for (int64_t k = 0; k < BATCH; k++) {
      int found = 0;
      for (int flip = 0; flip < 2; flip++)
        for (int down = -PADDING; down <= PADDING; down++)
          for (int right = -PADDING; right <= PADDING; right++)
            if (!found && is_augmented((uint8_t *)data_of(b.fields[0]) + k * PIXELS, ((int64_t *)data_of(b.indices))[k],
                                       flip, down, right)) {
              found = 1;
              flips += flip;
              seen[down + PADDING][right + PADDING]++;
            }
      assert_true(found);
    }
  }
  assert_in_range(flips, STEPS * BATCH * 4 / 10, STEPS * BATCH * 6 / 10);
  for (int k = 0; k < 25; k++) assert_in_range(seen[k / 5][k % 5], 5, 70); /* 28 expected */
  free_batch(&b);
  pg_loader_free(l);
}

static void ranks_share_a_step(void **state) {
  (void)state;
  pg_loader_options whole = plain_options(), part = plain_options();
  whole.batch = 2 * BATCH;
  part.stride = 2 * BATCH;
  pg_loader *l = memory_loader(&whole);
  pg_tensor *images = new_tensor(PG_UINT8, 4, 2 * BATCH, SIDE, SIDE, 3),
            *labels = new_tensor(PG_INT64, 1, 2 * BATCH, 0, 0, 0);
  pg_tensor *fields[2] = {images, labels};
  batch b = new_batch();
  assert_int_equal(pg_loader_seek(l, 5), PG_OK);
  assert_int_equal(pg_loader_next(l, 2, fields, NULL, NULL), PG_OK);
  pg_loader_free(l);
  for (int rank = 0; rank < 2; rank++) {
    part.first = rank * BATCH;
    l = memory_loader(&part);
    assert_int_equal(pg_loader_seek(l, 5), PG_OK);
    next(l, &b, 5);
    assert_memory_equal(data_of(b.fields[1]), (int64_t *)data_of(labels) + rank * BATCH, BATCH * sizeof(int64_t));
    pg_loader_free(l);
  }
  pg_tensor_release(images);
  pg_tensor_release(labels);
  free_batch(&b);
}

/* COUNT PNG files 000.png ... with the pixels of make_data, and their names for the loader. */
static int64_t make_pngs(char *names) {
  pg_tensor *image = new_tensor(PG_UINT8, 3, SIDE, SIDE, 3, 0);
  int64_t used = 0;
  for (int64_t i = 0; i < COUNT; i++) {
    for (int64_t k = 0; k < PIXELS; k++) ((uint8_t *)data_of(image))[k] = pixel(i, k);
    used += sprintf(names + used, "%03d.png", (int)i) + 1;
    assert_int_equal(pg_png_write(in_folder(names + used - 8), image), PG_OK);
  }
  pg_tensor_release(image);
  return used;
}

static void files_give_what_memory_gives(void **state) {
  (void)state;
  char names[COUNT * 8];
  int64_t names_bytes = make_pngs(names), shape[3] = {SIDE, SIDE, 3};
  pg_loader_options options = plain_options();
  options.flip = 1;
  pg_loader *memory = memory_loader(&options), *l;
  pg_tensor *images, *labels;
  make_data(&images, &labels);
  FILE *file = fopen(in_folder("records"), "wb");
  fwrite("header..", 1, 8, file);
  fwrite(data_of(images), 1, COUNT * PIXELS, file);
  fclose(file);
  assert_int_equal(pg_loader_new(&l, &options), PG_OK);
  assert_int_equal(pg_loader_add_pictures(l, folder, names, names_bytes, SIDE, SIDE, 0, 1), PG_OK);
  assert_int_equal(pg_loader_add_file(l, in_folder("records"), 8, PG_UINT8, 3, shape, 1), PG_OK);
  batch a = new_batch(), b = new_batch();
  pg_tensor *second = new_tensor(PG_UINT8, 4, BATCH, SIDE, SIDE, 3), *fields[2] = {b.fields[0], second};
  for (int64_t step = 0; step < 8; step++) {
    next(memory, &a, step);
    if (pg_loader_next(l, 2, fields, NULL, NULL)) fail_msg("%s", pg_last_error());
    assert_memory_equal(data_of(a.fields[0]), data_of(b.fields[0]), BATCH * PIXELS);
    assert_memory_equal(data_of(a.fields[0]), data_of(second), BATCH * PIXELS);
  }
  assert_int_equal(pg_loader_want(l, 0, 0), PG_OK);
  assert_int_equal(pg_loader_next(l, 2, fields, NULL, NULL), PG_ERROR_ARGUMENT);
  fields[0] = NULL;
  next(memory, &a, 8);
  assert_int_equal(pg_loader_next(l, 2, fields, NULL, NULL), PG_OK);
  assert_memory_equal(data_of(a.fields[0]), data_of(second), BATCH * PIXELS);
  pg_loader_free(l);
  pg_loader_free(memory);
  pg_tensor_release(images);
  pg_tensor_release(labels);
  pg_tensor_release(second);
  free_batch(&a);
  free_batch(&b);
}

/* Records of a float [2], their sums behind them; those of mirror images follow. */
static void a_mapped_file_knows_mirror_images(void **state) {
  (void)state;
  enum { STRIDE = 16, OFFSET = 4, SEED = 7 };
  unsigned char content[OFFSET + 2 * COUNT * STRIDE];
  memset(content, 0xff, sizeof content);
  for (int k = 0; k < 2 * COUNT; k++) {
    unsigned char *record = content + OFFSET + k * STRIDE;
    memcpy(record, (float[2]){(float)k, -1}, 8);
    uint32_t sum = pg_record_crc32(SEED, k, record, 8);
    memcpy(record + 8, &sum, 4);
  }
  put_file(in_folder("mapped"), content, sizeof content);
  pg_loader_options options = plain_options();
  options.shuffle = 0;
  int64_t two = 2;
  for (int flip = 0; flip <= PG_FLIP_ALWAYS; flip++) {
    pg_loader *l;
    pg_tensor *images, *labels, *kept = new_tensor(PG_FLOAT32, 2, BATCH, 2, 0, 0);
    batch b = new_batch();
    options.flip = flip;
    make_data(&images, &labels);
    assert_int_equal(pg_loader_new(&l, &options), PG_OK);
    assert_int_equal(pg_loader_add_tensor(l, images, 1), PG_OK);
    const char *path = in_folder("mapped");
    assert_int_equal(pg_loader_add_mapped(l, path, OFFSET, STRIDE, COUNT * STRIDE, SEED, PG_FLOAT32, 1, &two), PG_OK);
    /* one byte further than the last record's filling allows; records that overlap; before the file; between records */
    assert_int_equal(pg_loader_add_mapped(l, path, OFFSET + 5, STRIDE, COUNT * STRIDE, SEED, PG_FLOAT32, 1, &two),
                     PG_ERROR_FORMAT);
    assert_int_equal(pg_loader_add_mapped(l, path, 0, 11, 0, SEED, PG_FLOAT32, 1, &two), PG_ERROR_ARGUMENT);
    assert_int_equal(pg_loader_add_mapped(l, path, -1, 12, 0, SEED, PG_FLOAT32, 1, &two), PG_ERROR_ARGUMENT);
    assert_int_equal(pg_loader_add_mapped(l, path, 0, 16, 24, SEED, PG_FLOAT32, 1, &two), PG_ERROR_ARGUMENT);
    int mirrored = 0;
    pg_tensor *fields[2] = {b.fields[0], kept};
    for (int64_t step = 0; step < 6; step++) {
      if (pg_loader_next(l, 2, fields, NULL, NULL)) fail_msg("%s", pg_last_error());
      for (int64_t k = 0; k < BATCH; k++) {
        int64_t i = (step * BATCH + k) % COUNT;
        int flipped = !is_augmented((uint8_t *)data_of(b.fields[0]) + k * PIXELS, i, 0, 0, 0);
        assert_true(((float *)data_of(kept))[2 * k] == (float)(i + (flipped ? COUNT : 0)));
        mirrored += flipped;
      }
    }
    assert_true(flip == 1 ? mirrored > 0 && mirrored < 6 * BATCH : mirrored == (flip ? 6 * BATCH : 0));
    pg_loader_free(l);
    pg_tensor_release(images);
    pg_tensor_release(labels);
    pg_tensor_release(kept);
    free_batch(&b);
  }
}

/* A record that changed, stands in another's place or belongs to another file is noticed when it is first read. */
static void a_damaged_record_is_noticed(void **state) {
  (void)state;
  enum { STRIDE = 8, SEED = 7, BAD = BATCH + 1 };
  unsigned char content[COUNT * STRIDE];
  for (int damage = 0; damage < 4; damage++) {
    for (int k = 0; k < COUNT; k++) {
      float value = (float)k;
      memcpy(content + k * STRIDE, &value, 4);
      uint32_t sum = pg_record_crc32(SEED + (damage == 3), k, &value, 4);
      memcpy(content + k * STRIDE + 4, &sum, 4);
    }
    if (damage == 1) content[BAD * STRIDE] ^= 1;
    if (damage == 2) memcpy(content + BAD * STRIDE, content, STRIDE);
    put_file(in_folder("mapped"), content, sizeof content);
    pg_loader *l;
    pg_loader_options options = plain_options();
    options.shuffle = 0;
    pg_tensor *kept = new_tensor(PG_FLOAT32, 1, BATCH, 0, 0, 0);
    assert_int_equal(pg_loader_new(&l, &options), PG_OK);
    assert_int_equal(pg_loader_add_mapped(l, in_folder("mapped"), 0, STRIDE, 0, SEED, PG_FLOAT32, 0, NULL), PG_OK);
    assert_int_equal(pg_loader_next(l, 1, &kept, NULL, NULL), damage == 3 ? PG_ERROR_FORMAT : PG_OK);
    if (damage < 3) assert_int_equal(pg_loader_next(l, 1, &kept, NULL, NULL), damage ? PG_ERROR_FORMAT : PG_OK);
    if (damage == 1) assert_message("mapped: record 8 is damaged: its CRC-32 is another", folder);
    pg_loader_free(l);
    pg_tensor_release(kept);
  }
}

static void reads_one_record_a_file(void **state) {
  (void)state;
  char names[COUNT * 8];
  int64_t used = 0, shape[2] = {2, 3};
  for (int i = 0; i < COUNT; i++) {
    float content[7] = {1.5f, (float)i, (float)i + 1, (float)i + 2, (float)i + 3, (float)i + 4, (float)i + 5};
    used += sprintf(names + used, "%03d.rec", i) + 1;
    put_file(in_folder(names + used - 8), content, sizeof content);
  }
  pg_loader *l;
  pg_loader_options options = plain_options();
  float header = 1.5f;
  pg_tensor *records = new_tensor(PG_FLOAT32, 3, BATCH, 2, 3, 0), *indices = new_tensor(PG_INT64, 1, BATCH, 0, 0, 0);
  assert_int_equal(pg_loader_new(&l, &options), PG_OK);
  assert_int_equal(pg_loader_add_files(l, folder, names, used, &header, 4, PG_FLOAT32, 2, shape), PG_OK);
  assert_int_equal(pg_loader_next(l, 1, &records, indices, NULL), PG_OK);
  for (int k = 0; k < BATCH * 6; k++)
    assert_true(((float *)data_of(records))[k] == (float)(((int64_t *)data_of(indices))[k / 6] + k % 6));

  float other[7] = {2.5f};
  for (int i = 0; i < COUNT; i++) put_file(in_folder(names + i * 8), other, sizeof other);
  assert_int_equal(pg_loader_seek(l, 0), PG_OK);
  assert_int_equal(pg_loader_next(l, 1, &records, indices, NULL), PG_ERROR_FORMAT);
  assert_message(".rec: its header is not that of the data set's first file", folder);
  for (int i = 0; i < COUNT; i++) put_file(in_folder(names + i * 8), other, sizeof other - 1);
  assert_int_equal(pg_loader_seek(l, 0), PG_OK);
  assert_int_equal(pg_loader_next(l, 1, &records, indices, NULL), PG_ERROR_FORMAT);
  assert_message(".rec: it has 27 bytes, the data set's files have 28", folder);
  pg_loader_free(l);
  pg_tensor_release(records);
  pg_tensor_release(indices);
}

static void a_bad_file_comes_out_at_next(void **state) {
  (void)state;
  char names[COUNT * 8];
  int64_t names_bytes = make_pngs(names);
  pg_loader_options options = plain_options();
  options.shuffle = 0;
  pg_loader *l;
  pg_tensor *images = new_tensor(PG_UINT8, 4, BATCH, SIDE, SIDE, 3);
  put_file(in_folder("009.png"), "no picture", 10);
  assert_int_equal(pg_loader_new(&l, &options), PG_OK);
  assert_int_equal(pg_loader_add_pictures(l, folder, names, names_bytes, SIDE, SIDE, 0, 0), PG_OK);
  assert_int_equal(pg_loader_next(l, 1, &images, NULL, NULL), PG_OK);
  for (int k = 0; k < 2; k++) { /* it stays there */
    assert_int_equal(pg_loader_next(l, 1, &images, NULL, NULL), PG_ERROR_FORMAT);
    assert_message("009.png: not a picture that can be read", NULL);
  }
  assert_int_equal(pg_loader_seek(l, 2), PG_OK);
  assert_int_equal(pg_loader_next(l, 1, &images, NULL, NULL), PG_OK);
  unlink(in_folder("010.png"));
  assert_int_equal(pg_loader_seek(l, 1), PG_OK);
  assert_int_not_equal(pg_loader_next(l, 1, &images, NULL, NULL), PG_OK);
  pg_loader_free(l);

  assert_int_equal(pg_loader_new(&l, &options), PG_OK);
  assert_int_equal(pg_loader_add_pictures(l, folder, names, names_bytes, SIDE + 1, SIDE, 0, 0), PG_OK);
  pg_tensor *tall = new_tensor(PG_UINT8, 4, BATCH, SIDE + 1, SIDE, 3);
  assert_int_equal(pg_loader_next(l, 1, &tall, NULL, NULL), PG_ERROR_FORMAT);
  assert_message(".png: the picture is 6x6, the data set's are 6x7 (width x height)", NULL);
  pg_loader_free(l);
  pg_tensor_release(tall);
  pg_tensor_release(images);
}

/* A picture [height,width,3] through the loader at another size, which the loader crops at the centre. */
static pg_tensor *fitted(int64_t height, int64_t width, uint8_t (*value)(int64_t y, int64_t x), int64_t to) {
  pg_tensor *image = new_tensor(PG_UINT8, 3, height, width, 3, 0), *out = new_tensor(PG_UINT8, 4, 1, to, to, 3);
  for (int64_t k = 0; k < height * width * 3; k++) ((uint8_t *)data_of(image))[k] = value(k / 3 / width, k / 3 % width);
  assert_int_equal(pg_png_write(in_folder("a.png"), image), PG_OK);
  pg_loader_options options = {.count = 1, .batch = 1, .threads = 0, .depth = 1};
  pg_loader *l;
  assert_int_equal(pg_loader_new(&l, &options), PG_OK);
  assert_int_equal(pg_loader_add_pictures(l, folder, "a.png", 6, to, to, 1, 0), PG_OK);
  assert_int_equal(pg_loader_next(l, 1, &out, NULL, NULL), PG_OK);
  pg_loader_free(l);
  pg_tensor_release(image);
  return out;
}

static uint8_t constant(int64_t y, int64_t x) { return (void)y, (void)x, 200; }
static uint8_t ramp_x(int64_t y, int64_t x) { return (void)y, (uint8_t)(x * 4); }
static uint8_t stripes(int64_t y, int64_t x) { return (void)y, x % 2 ? 255 : 0; }

static void resizes_and_crops_at_the_centre(void **state) {
  (void)state;
  pg_tensor *t = fitted(20, 30, constant, 8);
  for (int k = 0; k < 8 * 8 * 3; k++) assert_int_equal(((uint8_t *)data_of(t))[k], 200);
  pg_tensor_release(t);
  t = fitted(3, 5, constant, 16); /* enlarged */
  for (int k = 0; k < 16 * 16 * 3; k++) assert_int_equal(((uint8_t *)data_of(t))[k], 200);
  pg_tensor_release(t);
  t = fitted(16, 48, ramp_x, 8); /* halved, then columns 8 ... 15 of 24: source centres 16.5 + 2x */
  for (int x = 0; x < 8; x++) assert_in_range(((uint8_t *)data_of(t))[(3 * 8 + x) * 3] + 1, 66 + 8 * x, 68 + 8 * x);
  pg_tensor_release(t);
  t = fitted(64, 64, stripes, 8); /* fine stripes become grey when shrunk: no aliasing */
  for (int k = 0; k < 8 * 8; k++) assert_in_range(((uint8_t *)data_of(t))[k * 3], 120, 136);
  pg_tensor_release(t);
}

static void says_what_does_not_fit(void **state) {
  (void)state;
  pg_loader_options options = plain_options();
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  pg_tensor *wrong = new_tensor(PG_UINT8, 4, BATCH, SIDE, SIDE, 1), *fields[2] = {wrong, b.fields[1]};
  assert_int_equal(pg_loader_next(l, 1, b.fields, NULL, NULL), PG_ERROR_ARGUMENT);
  assert_message("1 tensors for 2 fields", NULL);
  assert_int_equal(pg_loader_next(l, 2, fields, NULL, NULL), PG_ERROR_ARGUMENT);
  assert_message("loader: field 0 is 7 samples", "[7,6,6,1]");
  assert_int_equal(pg_loader_add_tensor(l, wrong, 0), PG_ERROR_ARGUMENT);
  assert_message("fields are added before the first batch", NULL);
  pg_loader_free(l);

  options.batch = 0;
  assert_int_equal(pg_loader_new(&l, &options), PG_ERROR_ARGUMENT);
  options = plain_options();
  assert_int_equal(pg_loader_new(&l, &options), PG_OK);
  assert_int_equal(pg_loader_next(l, 0, NULL, NULL, NULL), PG_ERROR_ARGUMENT);
  assert_message("no fields", NULL);
  assert_int_equal(pg_loader_add_tensor(l, wrong, 0), PG_ERROR_ARGUMENT);
  assert_message("23 samples were announced, the tensor is [7,6,6,1]", NULL);
  assert_int_equal(pg_loader_add_pictures(l, "x", "a\0b\0", 4, 8, 8, 0, 0), PG_ERROR_ARGUMENT);
  assert_message("2 file names for 23 samples", NULL);
  assert_int_equal(pg_loader_add_pictures(l, "x", "ab", 2, 8, 8, 0, 0), PG_ERROR_ARGUMENT);
  int64_t shape[1] = {INT64_MAX};
  put_file(in_folder("few"), "12345678", 8);
  assert_int_equal(pg_loader_add_file(l, in_folder("few"), 0, PG_FLOAT32, 1, shape, 0), PG_ERROR_ARGUMENT);
  shape[0] = 1;
  assert_int_equal(pg_loader_add_file(l, in_folder("few"), 0, PG_FLOAT32, 1, shape, 0), PG_ERROR_FORMAT);
  assert_message("few: 23 records of 4 bytes", "the file has 8 bytes");
  assert_int_equal(pg_loader_add_file(l, in_folder("none"), 0, PG_FLOAT32, 1, shape, 0), PG_ERROR_IO);
  pg_loader_free(l);
  pg_tensor_release(wrong);
  free_batch(&b);
}

/* With full slots and nobody asking, the threads use no processor time. */
static void idle_threads_sleep(void **state) {
  (void)state;
  pg_loader_options options = plain_options();
  options.threads = 4;
  pg_loader *l = memory_loader(&options);
  batch b = new_batch();
  next(l, &b, 0);
  usleep(50000);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  usleep(300000);
  getrusage(RUSAGE_SELF, &after);
  long used = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec -
              before.ru_utime.tv_usec + (after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000 +
              after.ru_stime.tv_usec - before.ru_stime.tv_usec;
  assert_in_range(used, 0, 60000);
  free_batch(&b);
  pg_loader_free(l);
}

static void memory_returns(void **state) {
  (void)state;
  int64_t before = pg_memory_now(PG_CPU, -1);
  pg_loader_options options = plain_options();
  for (int64_t n = 0; n < 60; n++) { /* each allocation fails once */
    pg_loader *l = NULL;
    batch b = new_batch();
    pg_tensor *images, *labels;
    make_data(&images, &labels);
    pg_memory_fail_after(n);
    pg_status status = pg_loader_new(&l, &options);
    if (!status) status = pg_loader_add_tensor(l, images, 0);
    if (!status) status = pg_loader_add_tensor(l, labels, 0);
    if (!status) status = pg_loader_next(l, 2, b.fields, b.indices, NULL);
    pg_memory_fail_after(-1);
    assert_true(status == PG_OK || status == PG_ERROR_MEMORY);
    pg_loader_free(l);
    pg_tensor_release(images);
    pg_tensor_release(labels);
    free_batch(&b);
  }
  assert_int_equal(pg_memory_now(PG_CPU, -1), before);
}

int main(void) {
#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_is_philox),
      cmocka_unit_test(every_epoch_is_a_permutation),
      cmocka_unit_test(without_shuffle_the_order_is_the_data_s),
      cmocka_unit_test(threads_and_restarts_change_nothing),
      cmocka_unit_test(seeking_works_at_any_time),
      cmocka_unit_test(augments),
      cmocka_unit_test(ranks_share_a_step),
      WITH_FOLDER(files_give_what_memory_gives),
      WITH_FOLDER(a_mapped_file_knows_mirror_images),
      WITH_FOLDER(a_damaged_record_is_noticed),
      WITH_FOLDER(reads_one_record_a_file),
      WITH_FOLDER(a_bad_file_comes_out_at_next),
      WITH_FOLDER(resizes_and_crops_at_the_centre),
      WITH_FOLDER(says_what_does_not_fit),
      cmocka_unit_test(idle_threads_sleep),
      cmocka_unit_test(memory_returns),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
