/* Sorting on CUDA: a merge sort of each row's places, in which every element finds its place in the merged run by
 * itself: its place in its own run, and as many more as go before it in the other. */
#include "cuda.h"
#include "sort/check.h"
#include "sort/key.h"
#include "sort/sort.h"

namespace {

struct rows {
  const void *x;
  int dtype, descending;
  int64_t count = 0, n = 0;

  __device__ __forceinline__ int64_t key(int64_t row, int64_t place) const {
    return key_of(x, dtype, descending, row * n + place);
  }
};

}  // namespace

static const int threads = 256;

/* Runs of `width` places become runs twice as long. from: NULL where the places are still in their own order. */
static __global__ void __launch_bounds__(threads) merge(int64_t *to, const int64_t *from, rows r, int64_t width) {
  PG_GRID_STRIDE(i, r.count * r.n) {
    int64_t row = i / r.n, p = i - row * r.n, start = p / (2 * width) * 2 * width;
    const int64_t *in = from ? from + row * r.n : nullptr;
    int64_t middle = min(start + width, r.n), end = min(start + 2 * width, r.n), place = in ? in[p] : p;
    int64_t key = r.key(row, place);
    bool first = p < middle; /* of equals the first run's go first */
    int64_t low = first ? middle : start, high = first ? end : middle, before = low;
    while (low < high) {
      int64_t between = low + (high - low) / 2, other = r.key(row, in ? in[between] : between);
      if (first ? other < key : other <= key) low = between + 1;
      else high = between;
    }
    to[row * r.n + (first ? p : start + p - middle) + low - before] = place;
  }
}

template <typename T>
static __global__ void __launch_bounds__(threads)
    pick(T *y, const T *x, const int64_t *place, int64_t total, int64_t n) {
  PG_GRID_STRIDE(i, total) y[i] = x[i / n * n + place[i]];
}

template <typename T>
static void pick_all(const sort_views &v, int64_t total, int64_t n, void *stream) {
  LAUNCH(pick<T>, pg_stride_blocks(total, threads), threads, 0, stream, pg_data<T>(v.y), pg_data<T>(v.x),
         pg_data<int64_t>(v.place), total, n);
}

int64_t PG_CUDA(sort_scratch)(const pg_call *call) {
  int64_t count = 0, n = 0;
  if (expect_sort(call, &count, &n)) return -1;
  return count * n * (int64_t)sizeof(int64_t);
}

pg_status PG_CUDA(sort)(const pg_call *call) {
  const sort_views v = sort_of(call);
  int64_t count = 0, n = 0;
  pg_status status = expect_sort(call, &count, &n);
  if (status) return status;
  rows r = {v.x->data, v.x->dtype, sort_ints_of(call).descending != 0, count, n};
  int64_t *place = pg_data<int64_t>(v.place), *scratch = static_cast<int64_t *>(call->scratch);
  int passes = 1; /* of one element too: it writes the places */
  for (int64_t width = 2; width < n; width *= 2) passes++;
  const int64_t *from = nullptr;
  for (int pass = 1; pass <= passes; pass++) {
    int64_t *to = (passes - pass) % 2 ? scratch : place; /* the last pass ends in `place` */
    int64_t width = (int64_t)1 << (pass - 1);
    LAUNCH(merge, pg_stride_blocks(count * n, threads), threads, 0, call->stream, to, from, r, width);
    from = to;
  }
  switch (pg_dtype_bytes(v.x->dtype)) {
  case 1: pick_all<uint8_t>(v, count * n, n, call->stream); break;
  case 2: pick_all<uint16_t>(v, count * n, n, call->stream); break;
  case 4: pick_all<uint32_t>(v, count * n, n, call->stream); break;
  default: pick_all<uint64_t>(v, count * n, n, call->stream);
  }
  return pg_launched("sort");
}
