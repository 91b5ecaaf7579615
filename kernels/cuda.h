/* Shared by the CUDA kernels. The build compiles each kernels/<op>/cuda.cu once per dtype with
 *
 *   PG_SUFFIX   _cuda_float32 or _cuda_bfloat16, pasted to every kernel's name by PG_CUDA()
 *   PG_REAL     PG_FLOAT32 (0) or PG_BFLOAT16 (2)
 *
 * by nvcc for GPUs, and by the host compiler for tests (tests/cuda_on_cpu/), where the threads of a block are fibres.
 * One source serves both, under these rules:
 *
 *   - Everything but the entries is `static`: the two instances of a file live in one library.
 *   - LAUNCH((kernel<a, b>), grid, block, shared_bytes, call->stream, arguments...), never <<<>>>.
 *   - Shared memory by PG_SHARED and PG_SHARED_DYNAMIC only. It holds garbage at first (in tests: NaN).
 *   - Threads of a warp meet only by `_sync` functions with the exact mask; a kernel that meets has blocks of whole
 *     warps. No thread returns before a barrier that others reach, and every __syncthreads is reached by all.
 *   - PTX stands in cuda_ptx.h, one function an instruction, each with a twin in tests/cuda_on_cpu/.
 *   - An entry only launches: no allocation, no synchronisation, no look at device memory, so that it can be captured
 *     into a graph. Its decisions depend on shapes, strides and addresses alone. Scratch comes with the call.
 *   - The bits do not depend on the order in which blocks and warps run: sums go in an order fixed by the shapes, never
 *     through floating-point atomics. */
#ifndef PERIGEE_KERNELS_CUDA_H
#define PERIGEE_KERNELS_CUDA_H

#include <cuda_runtime.h>
#include <stdint.h>

#include "kernel.h"

#define PG_CUDA(name) PG_INSTANCE(name)

/* Functions that device code and the CPU's kernels share (activation/functions.h). */
#define PG_FUNCTION static __device__ __forceinline__

/* What a block's dynamic shared memory takes at most: with 2 KiB of static arrays it is what GPUs 8.6 and 8.9 have
 * (8.0: 163 KiB, 9.0: 227). */
enum { PG_MOST_SHARED_BYTES = 97 << 10 };

/* PG_SHARED(float, tile, [32][33]) declares a shared array; PG_SHARED_DYNAMIC(float, row) the pointer to what LAUNCH's
 * shared_bytes ask for. Both start at a multiple of 16 bytes. */
#ifdef __CUDACC__
#define PG_SHARED(type, name, extents) __shared__ __align__(16) type name extents
#define PG_SHARED_DYNAMIC(type, name) \
  extern __shared__ uint4 pg_dynamic_shared[]; \
  type *const name = reinterpret_cast<type *>(pg_dynamic_shared)
#include "cuda_ptx.h"
#else
#include <cuda_on_cpu_ptx.h>
#endif

enum { PG_WARP = 32 };
static const unsigned PG_ALL_LANES = 0xffffffffu;

/* ---- types: `real` is what tensors hold, `stat` what is computed in and what statistics are stored as ---- */

typedef float stat;
#define PG_STAT PG_FLOAT32

/* bfloat16's 16 bits, no number of its own: arithmetic goes through load() and store(). */
struct bfloat16 {
  uint16_t bits;
};

static __device__ __forceinline__ float load(float x) { return x; }
static __device__ __forceinline__ float load(bfloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }

/* Two bfloat16 in a word, the first in its lower half. */
static __device__ __forceinline__ float low_bfloat16(unsigned pair) { return __uint_as_float(pair << 16); }
static __device__ __forceinline__ float high_bfloat16(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

#if PG_REAL == 0
typedef float real;
static __device__ __forceinline__ real store(stat x) { return x; }
#else
typedef bfloat16 real;
static __device__ __forceinline__ real store(stat x) { return bfloat16{(uint16_t)pack_bfloat16(x, 0.0f)}; }
#endif

/* ---- 16 bytes at a time: 4 float32 or 8 bfloat16, from an address that is a multiple of 16 ---- */

enum { PG_VECTOR = 16 / sizeof(real) };

static __device__ __forceinline__ void load_vector(stat out[4], const float *from) {
  float4 v = *reinterpret_cast<const float4 *>(from);
  out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
}
static __device__ __forceinline__ void load_vector(stat out[8], const bfloat16 *from) {
  uint4 v = *reinterpret_cast<const uint4 *>(from);
  out[0] = low_bfloat16(v.x), out[1] = high_bfloat16(v.x), out[2] = low_bfloat16(v.y), out[3] = high_bfloat16(v.y);
  out[4] = low_bfloat16(v.z), out[5] = high_bfloat16(v.z), out[6] = low_bfloat16(v.w), out[7] = high_bfloat16(v.w);
}
/* To global memory. */
static __device__ __forceinline__ void store_vector(float *to, const stat in[4]) {
  store_16(to, __float_as_uint(in[0]), __float_as_uint(in[1]), __float_as_uint(in[2]), __float_as_uint(in[3]));
}
static __device__ __forceinline__ void store_vector(bfloat16 *to, const stat in[8]) {
  store_16(to, pack_bfloat16(in[0], in[1]), pack_bfloat16(in[2], in[3]), pack_bfloat16(in[4], in[5]),
           pack_bfloat16(in[6], in[7]));
}

/* `N` elements: PG_VECTOR of them in one access, or one by itself. */
template <int N>
static __device__ __forceinline__ void load_some(stat out[N], const real *from) {
  if constexpr (N == 1) out[0] = load(*from);
  else load_vector(out, from);
}
template <int N>
static __device__ __forceinline__ void store_some(real *to, const stat in[N]) {
  if constexpr (N == 1) *to = store(in[0]);
  else store_vector(to, in);
}

/* Whether rows of `width` elements that start every `stride` at `data` (NULL: absent) can be read by vectors. */
static inline bool pg_vectorisable(const void *data, int64_t width, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && width % PG_VECTOR == 0 && stride % PG_VECTOR == 0;
}

/* ---- sums in a fixed order ---- */

/* The sum over a warp's 32 lanes, the same bits in every lane; of floats or doubles. */
template <class T>
static __device__ __forceinline__ T warp_sum(T x) {
  for (int offset = PG_WARP / 2; offset; offset /= 2) x += __shfl_xor_sync(PG_ALL_LANES, x, offset);
  return x;
}
static __device__ __forceinline__ float warp_max(float x) {
  for (int offset = PG_WARP / 2; offset; offset /= 2) x = fmaxf(x, __shfl_xor_sync(PG_ALL_LANES, x, offset));
  return x;
}

/* The sum over a block of `WARPS` warps in one dimension, in every thread. It may be called again and again. */
template <int WARPS, class T>
static __device__ __forceinline__ T block_sum(T x) {
  PG_SHARED(T, parts, [WARPS]);
  x = warp_sum(x);
  __syncthreads(); /* an earlier call's readers are through */
  if (threadIdx.x % PG_WARP == 0) parts[threadIdx.x / PG_WARP] = x;
  __syncthreads();
  T sum = 0;
  for (int w = 0; w < WARPS; w++) sum += parts[w];
  return sum;
}
template <int WARPS>
static __device__ __forceinline__ float block_max(float x) {
  PG_SHARED(float, parts, [WARPS]);
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % PG_WARP == 0) parts[threadIdx.x / PG_WARP] = x;
  __syncthreads();
  float most = parts[0];
  for (int w = 1; w < WARPS; w++) most = fmaxf(most, parts[w]);
  return most;
}

/* ---- rows, each the work of a warp or, where they are long, of a block ---- */

enum { PG_ROW_BLOCK = 256, PG_LONG_ROW = 2048 };

/* A thread's row and its place among the row's THREADS: PG_WARP, with several rows a block, or PG_ROW_BLOCK. */
template <int THREADS>
static __device__ __forceinline__ int64_t row_of_thread() {
  return (int64_t)blockIdx.x * (PG_ROW_BLOCK / THREADS) + threadIdx.x / THREADS;
}
template <int THREADS>
static __device__ __forceinline__ int place_in_row() {
  return threadIdx.x % THREADS;
}
template <int THREADS, class T>
static __device__ __forceinline__ T row_sum(T x) {
  if constexpr (THREADS == PG_WARP) return warp_sum(x);
  else return block_sum<THREADS / PG_WARP>(x);
}
template <int THREADS>
static __device__ __forceinline__ float row_max(float x) {
  if constexpr (THREADS == PG_WARP) return warp_max(x);
  else return block_max<THREADS / PG_WARP>(x);
}

/* ---- functions, as cpu_math.h has them ---- */

#define PG_MATH(function) function##f
PG_FUNCTION stat pg_exp(stat x) { return expf(x); }
PG_FUNCTION stat pg_log(stat x) { return logf(x); }
PG_FUNCTION stat pg_tanh(stat x) { return tanhf(x); }
PG_FUNCTION stat pg_erf(stat x) { return erff(x); }
#if PG_REAL == 0
PG_FUNCTION stat pg_sigmoid(stat x) { return 1.0f / (1.0f + pg_exp(-x)); }
#else /* 2^-20 off, and without the branches of a division that is rounded correctly */
PG_FUNCTION stat pg_sigmoid(stat x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
#endif

/* ---- launches ---- */

/* for (int64_t i ...) over [0, n), the grid's threads taking turns. */
#define PG_GRID_STRIDE(i, n) \
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (int64_t)gridDim.x * blockDim.x)


/* Blocks for `n` items at `per_block` each. Grid-stride loops may have fewer than that: at most 16 for each of the 132
 * multiprocessors of an H100. */
static inline unsigned pg_blocks(int64_t n, int64_t per_block) { return (unsigned)pg_pieces(n, per_block); }
static inline unsigned pg_stride_blocks(int64_t n, int64_t per_block) {
  int64_t blocks = pg_pieces(n, per_block), most = 132 * 16;
  return (unsigned)(blocks < most ? blocks : most);
}

/* Puts a kernel into the call's stream; an empty grid is no launch. Failures are kept for pg_launched(). */
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  pg_launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

template <typename... Parameters, typename... Arguments>
static inline void pg_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void *stream,
                             Arguments... arguments) {
  if (!grid.x || !grid.y || !grid.z) return;
  if (shared_bytes > (48 << 10)) /* always the same, so that no launch that a graph holds finds less than it had */
    cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                         PG_MOST_SHARED_BYTES);
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchKernelEx(&config, kernel, arguments...);
}

/* The grid for `rows` rows of `width` elements. */
static inline unsigned pg_row_blocks(int64_t rows, int64_t width) {
  return pg_blocks(rows, width > PG_LONG_ROW ? 1 : PG_ROW_BLOCK / PG_WARP);
}

/* out = Σ partial / divisor, added up in the divisor's type by one block: the second step of a sum whose pieces the
 * shapes fix. */
enum { PG_ADDING_THREADS = 1024 };
template <class P, class T>
static __global__ void __launch_bounds__(PG_ADDING_THREADS)
    add_partial_sums(stat *out, const P *partial, int64_t n, T divisor) {
  T sum = 0;
  for (int64_t k = threadIdx.x; k < n; k += PG_ADDING_THREADS) sum += partial[k];
  sum = block_sum<PG_ADDING_THREADS / PG_WARP>(sum);
  if (threadIdx.x == 0) *out = (stat)(sum / divisor);
}
template <class P, class T>
static inline void pg_add_partial_sums(stat *out, const P *partial, int64_t n, T divisor, void *stream) {
  LAUNCH((add_partial_sums<P, T>), 1, PG_ADDING_THREADS, 0, stream, out, partial, n, divisor);
}

/* The end of every entry: whether its launches were accepted. */
static inline pg_status pg_launched(const char *op) {
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return PG_OK;
  return pg_error(PG_ERROR_DEVICE, "%s: the launch failed: %s", op, cudaGetErrorString(error));
}

/* A view's memory; NULL where the view is absent. */
template <typename T>
static inline T *pg_data(pg_named_view v) {
  return static_cast<T *>(v->data);
}

#endif
