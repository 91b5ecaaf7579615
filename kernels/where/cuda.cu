#include "cuda_loop.h"

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
  const pg_view *y = &call->v[0], *condition = &call->v[1], *a = &call->v[2], *b = &call->v[3];
  PG_EXPECT(condition->dtype == PG_UINT8, "where: the condition has dtype %d, expected uint8", condition->dtype);
  PG_EXPECT(a->dtype == y->dtype && b->dtype == y->dtype, "where: y has dtype %d, a %d, b %d; they must be the same",
            y->dtype, a->dtype, b->dtype);
  PG_EXPECT(pg_contiguous(y), "where: y must be contiguous");
  const pg_view *const views[4] = {y, condition, a, b};
  pg_loop loop;
  PG_EXPECT(pg_loop_make(&loop, 4, views), "where: %s, %s and %s do not broadcast to %s", pg_shape_text(condition),
            pg_shape_text(a), pg_shape_text(b), pg_shape_text(y));
  switch (loop.bytes[0]) {
  case 1: pg_each<4, 16>(loop, choice<uint8_t>{}, call->stream); break;
  case 2: pg_each<4, 8>(loop, choice<uint16_t>{}, call->stream); break;
  case 4: pg_each<4, 4>(loop, choice<uint32_t>{}, call->stream); break;
  default: pg_each<4, 2>(loop, choice<uint64_t>{}, call->stream);
  }
  return pg_launched("where");
}
