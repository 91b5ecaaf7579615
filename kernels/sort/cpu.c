/* Sorting on the CPU: a merge sort of each row's places by their keys. */
#include "cpu.h"

#include "sort/check.h"
#include "sort/key.h"
#include "sort/sort.h"

enum { RUN = 16 /* places that insertion sorts */, PARALLEL = 4096 /* elements */ };

static void insertion_sort(int64_t *place, const int64_t *key, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; i++) {
    int64_t j = i, k = key[i];
    for (; j > from && key[place[j - 1]] > k; j--) place[j] = place[j - 1];
    place[j] = i;
  }
}

/* Two runs that follow each other, [from, middle) and [middle, to); of equals the first run's go first. */
static void merge(int64_t *out, const int64_t *in, const int64_t *key, int64_t from, int64_t middle, int64_t to) {
  int64_t i = from, j = middle;
  for (int64_t k = from; k < to; k++) out[k] = j >= to || (i < middle && key[in[i]] <= key[in[j]]) ? in[i++] : in[j++];
}

/* `other` is room for n places. */
static void sort_places(int64_t *place, int64_t *other, const int64_t *key, int64_t n) {
  int passes = 0;
  for (int64_t width = RUN; width < n; width *= 2) passes++;
  int64_t *in = passes % 2 ? other : place, *out = passes % 2 ? place : other; /* the last pass ends in `place` */
  for (int64_t from = 0; from < n; from += RUN) insertion_sort(in, key, from, from + RUN < n ? from + RUN : n);
  for (int64_t width = RUN; width < n; width *= 2) {
    for (int64_t from = 0; from < n; from += 2 * width) {
      int64_t middle = from + width < n ? from + width : n, to = middle + width < n ? middle + width : n;
      merge(out, in, key, from, middle, to);
    }
    int64_t *swap = in;
    in = out, out = swap;
  }
}

/* Keys and places of a row, for each thread. */
int64_t PG_CPU(sort_scratch)(const pg_call *call) {
  int64_t rows, n;
  if (expect_sort(call, &rows, &n)) return -1;
  return pg_kernel_threads() * 2 * n * (int64_t)sizeof(int64_t);
}

pg_status PG_CPU(sort)(const pg_call *call) {
  const sort_views v = sort_of(call);
  int64_t rows, n;
  pg_status status = expect_sort(call, &rows, &n);
  if (status) return status;
  int64_t bytes = pg_dtype_bytes(v.x->dtype);
  int descending = sort_ints_of(call).descending != 0;
#pragma omp parallel if (rows > 1 && rows * n > PARALLEL)
  {
    int64_t *key = (int64_t *)call->scratch + omp_get_thread_num() * 2 * n;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
      int64_t *place = (int64_t *)v.place->data + row * n;
      const char *x = (const char *)v.x->data + row * n * bytes;
      char *y = (char *)v.y->data + row * n * bytes;
      for (int64_t i = 0; i < n; i++) key[i] = key_of(x, v.x->dtype, descending, i);
      sort_places(place, key + n, key, n);
      for (int64_t i = 0; i < n; i++) memcpy(y + i * bytes, x + place[i] * bytes, (size_t)bytes);
    }
  }
  return PG_OK;
}
