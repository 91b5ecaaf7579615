#include "cuda_copy.h"

#include "rotary/check.h"
#include "rotary/rotary.h"

struct rotary_arguments {
  real *y;
  const stat *turns;
  int64_t tokens, skip, vectors, half, an_image; /* vectors: heads of queries and keys together */
  stat sign;
};

/* Each thread rotates N pairs of one vector, in place; (i, i + d/2) are two accesses far apart, (2i, 2i + 1) two side by
 * side. */
template <int N, bool INTERLEAVED>
static __global__ void __launch_bounds__(256) rotate_vectors(rotary_arguments a, int64_t threads) {
  PG_GRID_STRIDE(thread, threads) {
    int64_t chunks = a.half / N, pair = thread % chunks * N, at = thread / chunks, vector = at % a.vectors;
    int64_t row = at / a.vectors, turned = a.tokens - a.skip, image = row / turned, token = row % turned;
    const stat *turns = a.turns + image * a.an_image + token * 2 * a.half + pair;
    /* a row has three parts of `vectors / 2` heads */
    real *y = a.y + ((image * a.tokens + a.skip + token) * (a.vectors / 2 * 3) + vector) * 2 * a.half;
    real *first = y + (INTERLEAVED ? 2 * pair : pair), *second = first + (INTERLEAVED ? N : a.half);
    stat low[N], high[N];
    load_some<N>(low, first);
    load_some<N>(high, second);
    for (int k = 0; k < N; k++) {
      stat c = turns[k], s = a.sign * turns[a.half + k];
      int p = INTERLEAVED ? 2 * k : k, q = INTERLEAVED ? 2 * k + 1 : k + N; /* where the pair lies in low ‖ high */
      stat &u = p < N ? low[p] : high[p - N], &w = q < N ? low[q] : high[q - N];
      stat x = u;
      u = x * c - w * s;
      w = x * s + w * c;
    }
    store_some<N>(first, low);
    store_some<N>(second, high);
  }
}

pg_status PG_CUDA(rotary)(const pg_call *call) {
  const rotary_views v = rotary_of(call);
  const rotary_ints i = rotary_ints_of(call);
  pg_status status = expect_rotary(call);
  if (status) return status;
  if (v.y->data != v.x->data) pg_copy_views(v.y, v.x, call->stream);
  int64_t tokens = v.x->shape[1], half = v.x->shape[4] / 2, turned = tokens - i.skip;
  rotary_arguments a = {pg_data<real>(v.y), pg_data<stat>(v.turns), tokens, i.skip, 2 * v.x->shape[3], half,
                        v.turns->shape[0] == 1 ? 0 : turned * 2 * half, i.inverse ? -1.0f : 1.0f};
  bool whole = pg_vectorisable(a.y, half, half);
  int64_t threads = v.x->shape[0] * turned * a.vectors * (half / (whole ? PG_VECTOR : 1));
  if (threads == 0) return PG_OK;
  auto kernel = whole ? (i.interleaved ? rotate_vectors<PG_VECTOR, true> : rotate_vectors<PG_VECTOR, false>)
                      : (i.interleaved ? rotate_vectors<1, true> : rotate_vectors<1, false>);
  LAUNCH(kernel, pg_stride_blocks(threads, 256), 256, 0, call->stream, a, threads);
  return pg_launched("rotary");
}
