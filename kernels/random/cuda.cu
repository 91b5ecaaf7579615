// nvcc: -fmad=false
/* No fused multiply-add in this file: random/random.h promises the same bits on every device. */
#include "cuda_loop.h"

#include "random/draw.h"
#include "random/normal.h"
#include "random/random.h"

static __device__ __forceinline__ void uniform_from(const uint32_t words[4], stat values[4]) {
  for (int k = 0; k < 4; k++) values[k] = draw_uniform(words[k]);
}

static __device__ __forceinline__ void normal_from(const uint32_t words[4], stat values[4]) {
  for (int k = 0; k < 4; k += 2) {
    float radius = pg_normal_radius(words[k]), cosine, sine;
    pg_normal_direction(words[k + 1], &cosine, &sine);
    values[k] = radius * cosine;
    values[k + 1] = radius * sine;
  }
}

/* A block of Philox, four numbers, a thread. y's elements are words d.first, ...: the first block may begin before y
 * does. `aligned`: y's address suits writes of four elements. */
template <void (*TRANSFORM)(const uint32_t *, stat *)>
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    draw_reals(real *y, const int64_t *state, int64_t purpose, uint64_t per_sample, int64_t n, bool aligned) {
  const draw d = draw_of(state, purpose, per_sample);
  int64_t skip = (int64_t)(d.first % 4), blocks = (n + skip + 3) / 4;
  PG_GRID_STRIDE(b, blocks) {
    uint32_t words[4];
    stat values[4];
    real out[4];
    draw_block(&d, d.first / 4 + (uint64_t)b, words);
    TRANSFORM(words, values);
    for (int k = 0; k < 4; k++) out[k] = store(values[k]);
    int64_t start = 4 * b - skip;
    if (aligned && skip == 0 && start + 4 <= n) {
      write_to<4>(y + start, out);
      continue;
    }
    for (int k = 0; k < 4; k++)
      if (start + k >= 0 && start + k < n) y[start + k] = out[k];
  }
}

template <void (*TRANSFORM)(const uint32_t *, stat *)>
static pg_status draw_all(const char *name, const pg_view *y, const pg_view *state, int64_t purpose, void *stream) {
  pg_status status = expect_draw(name, y, state, purpose, PG_REAL);
  if (status) return status;
  int64_t n = pg_numel(y);
  bool aligned = reinterpret_cast<uintptr_t>(y->data) % (4 * sizeof(real)) == 0;
  unsigned blocks = n ? pg_stride_blocks(n / 4 + 2, PG_EACH_THREADS) : 0;
  LAUNCH(draw_reals<TRANSFORM>, blocks, PG_EACH_THREADS, 0, stream, pg_data<real>(y), pg_data<int64_t>(state), purpose,
         elements_per_sample(y), n, aligned);
  return pg_launched(name);
}

pg_status PG_CUDA(random_uniform)(const pg_call *call) {
  const random_uniform_views v = random_uniform_of(call);
  return draw_all<uniform_from>("random_uniform", v.y, v.state, random_uniform_ints_of(call).purpose, call->stream);
}

pg_status PG_CUDA(random_normal)(const pg_call *call) {
  const random_normal_views v = random_normal_of(call);
  return draw_all<normal_from>("random_normal", v.y, v.state, random_normal_ints_of(call).purpose, call->stream);
}

/* ---- integers ---- */

static __global__ void __launch_bounds__(PG_EACH_THREADS)
    draw_integers(int64_t *y, const int64_t *state, int64_t purpose, uint64_t per_sample, int64_t n, int64_t high) {
  const draw d = draw_of(state, purpose, per_sample);
  PG_GRID_STRIDE(k, n) y[k] = draw_below(&d, d.first + (uint64_t)k, high);
}

pg_status PG_CUDA(random_integers)(const pg_call *call) {
  const random_integers_views v = random_integers_of(call);
  pg_status status = expect_integers(call);
  if (status) return status;
  const random_integers_ints i = random_integers_ints_of(call);
  int64_t n = pg_numel(v.y);
  LAUNCH(draw_integers, pg_stride_blocks(n, PG_EACH_THREADS), PG_EACH_THREADS, 0, call->stream,
         pg_data<int64_t>(v.y), pg_data<int64_t>(v.state), i.purpose, elements_per_sample(v.y), n, i.high);
  return pg_launched("random_integers");
}

/* One block. Its threads draw the partners of PG_EACH_THREADS places, and one thread swaps, in order: in shared memory
 * where all places fit (as 32-bit numbers), else in y. */
template <bool IN_SHARED>
static __global__ void __launch_bounds__(PG_EACH_THREADS)
    permute(int64_t *y, const int64_t *state, int64_t purpose, int64_t n) {
  PG_SHARED_DYNAMIC(uint32_t, shared);
  PG_SHARED(int64_t, partner, [PG_EACH_THREADS]);
  const draw d = draw_of(state, purpose, 0);
  for (int64_t k = threadIdx.x; k < n; k += PG_EACH_THREADS) {
    if constexpr (IN_SHARED) shared[k] = (uint32_t)k;
    else y[k] = k;
  }
  for (int64_t first = 0; first < n; first += PG_EACH_THREADS) {
    int64_t k = first + threadIdx.x;
    __syncthreads();
    if (k < n) partner[threadIdx.x] = k + draw_below(&d, (uint64_t)k, n - k);
    __syncthreads();
    for (int64_t j = 0; threadIdx.x == 0 && j < PG_EACH_THREADS && first + j < n; j++) {
      if constexpr (IN_SHARED) {
        uint32_t swapped = shared[first + j];
        shared[first + j] = shared[partner[j]], shared[partner[j]] = swapped;
      } else {
        int64_t swapped = y[first + j];
        y[first + j] = y[partner[j]], y[partner[j]] = swapped;
      }
    }
  }
  if constexpr (IN_SHARED) {
    __syncthreads();
    for (int64_t k = threadIdx.x; k < n; k += PG_EACH_THREADS) y[k] = shared[k];
  }
}

pg_status PG_CUDA(random_permutation)(const pg_call *call) {
  const random_permutation_views v = random_permutation_of(call);
  pg_status status = expect_permutation(call);
  if (status) return status;
  int64_t n = v.y->shape[0], bytes = n * (int64_t)sizeof(uint32_t);
  bool in_shared = bytes <= PG_MOST_SHARED_BYTES;
  auto kernel = in_shared ? permute<true> : permute<false>;
  LAUNCH(kernel, n ? 1 : 0, PG_EACH_THREADS, in_shared ? (size_t)bytes : 0, call->stream, pg_data<int64_t>(v.y),
         pg_data<int64_t>(v.state), random_permutation_ints_of(call).purpose, n);
  return pg_launched("random_permutation");
}
