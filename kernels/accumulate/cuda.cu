#include "cuda_loop.h"

#include "accumulate/accumulate.h"
#include "accumulate/check.h"

namespace {

/* Operands: total (float32, or real), x. */
template <typename T>
struct accumulation {
  stat scale;
  bool first;
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    T sum[N];
    real x[N];
    read<N>(x, g, 1, at);
    if (first) {
      for (int k = 0; k < N; k++) put(sum[k], scale * load(x[k]));
    } else {
      read<N>(sum, g, 0, at);
      for (int k = 0; k < N; k++) put(sum[k], load(sum[k]) + scale * load(x[k]));
    }
    write<N>(g, 0, at, sum);
  }
  static __device__ __forceinline__ void put(float &to, stat x) { to = x; }
  static __device__ __forceinline__ void put(bfloat16 &to, stat x) { to = bfloat16{(uint16_t)pack_bfloat16(x, 0.0f)}; }
};

}  // namespace

pg_status PG_CUDA(accumulate)(const pg_call *call) {
  const accumulate_views v = accumulate_of(call);
  pg_status status = expect_accumulate(call);
  if (status) return status;
  const pg_view *const views[2] = {v.total, v.x};
  pg_loop loop = pg_loop_flat(2, views);
  stat scale = (stat)accumulate_floats_of(call).scale;
  bool first = accumulate_ints_of(call).first != 0;
  if (v.total->dtype == PG_REAL) pg_each<2, PG_VECTOR>(loop, accumulation<real>{scale, first}, call->stream);
  else pg_each<2, PG_VECTOR>(loop, accumulation<stat>{scale, first}, call->stream);
  return pg_launched("accumulate");
}
