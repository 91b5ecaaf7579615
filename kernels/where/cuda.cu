#include "cuda_loop.h"

#include "where/check.h"
#include "where/where.h"

namespace {

/* Operands: y, condition, a, b; T is an element's bits. */
template <typename T>
struct choice {
  template <int N, typename G>
  __device__ __forceinline__ void operator()(const G &g, const int *at) const {
    uint8_t condition[N];
    T a[N], b[N];
    read<N>(condition, g, 1, at);
    read<N>(a, g, 2, at);
    read<N>(b, g, 3, at);
    for (int k = 0; k < N; k++) a[k] = condition[k] ? a[k] : b[k];
    write<N>(g, 0, at, a);
  }
};

}  // namespace

pg_status PG_CUDA(where)(const pg_call *call) {
  pg_loop loop;
  pg_status status = expect_where(call, &loop);
  if (status) return status;
  switch (loop.bytes[0]) {
  case 1: pg_each<4, 16>(loop, choice<uint8_t>{}, call->stream); break;
  case 2: pg_each<4, 8>(loop, choice<uint16_t>{}, call->stream); break;
  case 4: pg_each<4, 4>(loop, choice<uint32_t>{}, call->stream); break;
  default: pg_each<4, 2>(loop, choice<uint64_t>{}, call->stream);
  }
  return pg_launched("where");
}
