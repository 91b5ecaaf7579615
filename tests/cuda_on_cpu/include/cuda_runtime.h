/* Stands for CUDA's header of this name where .cu files are compiled by the host compiler: the language's words, vector
 * types and the functions of device code. Only what kernels here use; a missing name is a compile error. */
#ifndef CUDA_ON_CPU_RUNTIME_H
#define CUDA_ON_CPU_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "cuda_on_cpu.h"

/* ---- words ---- */

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

#define threadIdx (cuda_on_cpu_current->index)
inline const uint3 &blockIdx = cuda_on_cpu_place.index;
inline const dim3 &blockDim = cuda_on_cpu_place.block, &gridDim = cuda_on_cpu_place.grid;

/* kernels/cuda.h says what these are. */
#define PG_SHARED(type, name, extents)                                                                                 \
  type(&name) extents = *static_cast<type(*) extents>(cuda_on_cpu_shared(                                              \
      []() -> const void * {                                                                                           \
        static char key;                                                                                               \
        return &key;                                                                                                   \
      }(),                                                                                                             \
      sizeof(type extents)))
#define PG_SHARED_DYNAMIC(type, name) type *const name = static_cast<type *>(cuda_on_cpu_dynamic_shared())

/* ---- vector types ---- */

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

/* ---- launches ---- */

template <typename... Parameters, typename... Arguments>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                                             Arguments &&...arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "a kernel's parameters are copied as bytes");
  using values = std::tuple<void (*)(Parameters...), std::remove_cv_t<Parameters>...>;
  values call(kernel, static_cast<Parameters>(arguments)...);
  auto body = [](const void *data) {
    std::apply([](auto f, const auto &...a) { f(a...); }, *static_cast<const values *>(data));
  };
  return cuda_on_cpu_launch(config, body, &call, sizeof call);
}

/* ---- meetings ---- */

#define __syncthreads() cuda_on_cpu_barrier(__FILE__, __LINE__)
#define __syncwarp(...) cuda_on_cpu_syncwarp(__FILE__, __LINE__, ##__VA_ARGS__)
#define __shfl_sync(...) cuda_on_cpu_shuffle(__FILE__, __LINE__, CUDA_ON_CPU_INDEX, __VA_ARGS__)
#define __shfl_up_sync(...) cuda_on_cpu_shuffle(__FILE__, __LINE__, CUDA_ON_CPU_UP, __VA_ARGS__)
#define __shfl_down_sync(...) cuda_on_cpu_shuffle(__FILE__, __LINE__, CUDA_ON_CPU_DOWN, __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_on_cpu_shuffle(__FILE__, __LINE__, CUDA_ON_CPU_XOR, __VA_ARGS__)
#define __ballot_sync(mask, predicate) cuda_on_cpu_ballot(__FILE__, __LINE__, mask, predicate)
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) cuda_on_cpu_all(__FILE__, __LINE__, mask, predicate)

static inline void cuda_on_cpu_syncwarp(const char *file, int line, unsigned mask = 0xffffffffu) {
  cuda_on_cpu_exchange(mask, nullptr, 0, file, line);
}

enum cuda_on_cpu_direction { CUDA_ON_CPU_INDEX, CUDA_ON_CPU_UP, CUDA_ON_CPU_DOWN, CUDA_ON_CPU_XOR };

template <typename T>
static inline T cuda_on_cpu_shuffle(const char *file, int line, cuda_on_cpu_direction direction, unsigned mask, T value,
                                    int by, int width = 32) {
  const cuda_on_cpu_slot *slots = cuda_on_cpu_exchange(mask, &value, sizeof value, file, line);
  int lane = cuda_on_cpu_current->lane, first = lane & ~(width - 1), source = lane;
  if (direction == CUDA_ON_CPU_INDEX) source = first + (by & (width - 1));
  if (direction == CUDA_ON_CPU_UP) source = lane - by < first ? lane : lane - by;
  if (direction == CUDA_ON_CPU_DOWN) source = lane + by >= first + width ? lane : lane + by;
  if (direction == CUDA_ON_CPU_XOR) source = (lane ^ by) >= first + width ? lane : lane ^ by;
  if (!(mask >> source & 1))
    cuda_on_cpu_fail("%s:%d: lane %d reads lane %d, which the mask 0x%08x does not name", file, line, lane, source,
                     mask);
  memcpy(&value, slots[source], sizeof value);
  return value;
}

static inline unsigned cuda_on_cpu_ballot(const char *file, int line, unsigned mask, int predicate) {
  const cuda_on_cpu_slot *slots = cuda_on_cpu_exchange(mask, &predicate, sizeof predicate, file, line);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    memcpy(&predicate, slots[lane], sizeof predicate);
    if (predicate) ballot |= 1u << lane;
  }
  return ballot;
}
static inline int cuda_on_cpu_all(const char *file, int line, unsigned mask, int predicate) {
  return cuda_on_cpu_ballot(file, line, mask, predicate) == mask;
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* ---- atomics ---- */

template <typename T, typename Change> static inline T cuda_on_cpu_atomic(T *address, Change change) {
  cuda_on_cpu_yield();
  T before = *address;
  *address = change(before);
  return before;
}
template <typename T> static inline T atomicAdd(T *address, T value) {
  return cuda_on_cpu_atomic(address, [=](T old) { return static_cast<T>(old + value); });
}
template <typename T> static inline T atomicMax(T *address, T value) {
  return cuda_on_cpu_atomic(address, [=](T old) { return old > value ? old : value; });
}
template <typename T> static inline T atomicMin(T *address, T value) {
  return cuda_on_cpu_atomic(address, [=](T old) { return old < value ? old : value; });
}
template <typename T> static inline T atomicOr(T *address, T value) {
  return cuda_on_cpu_atomic(address, [=](T old) { return old | value; });
}
template <typename T> static inline T atomicExch(T *address, T value) {
  return cuda_on_cpu_atomic(address, [=](T) { return value; });
}
template <typename T> static inline T atomicCAS(T *address, T compare, T value) {
  return cuda_on_cpu_atomic(address, [=](T old) { return old == compare ? value : old; });
}

/* ---- bits, memory hints, arithmetic ---- */

template <typename To, typename From> static inline To cuda_on_cpu_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits in another type");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
static inline unsigned __float_as_uint(float x) { return cuda_on_cpu_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return cuda_on_cpu_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return cuda_on_cpu_bits<float>(x); }
static inline float __int_as_float(int x) { return cuda_on_cpu_bits<float>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}

template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, T value) { *p = value; }

using std::isfinite;
using std::isinf;
using std::isnan;

/* C libraries have declarations of their own under some of these names. */
static inline float cuda_on_cpu_rsqrt(float x) { return 1.0f / sqrtf(x); }
#define rsqrtf cuda_on_cpu_rsqrt
#define __expf expf
#define __logf logf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

template <typename T> static inline std::enable_if_t<std::is_arithmetic_v<T>, T> min(T a, T b) { return b < a ? b : a; }
template <typename T> static inline std::enable_if_t<std::is_arithmetic_v<T>, T> max(T a, T b) { return a < b ? b : a; }

#endif
