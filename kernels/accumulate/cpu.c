#include "cpu.h"

#include "accumulate/accumulate.h"
#include "accumulate/check.h"

#define SAME(x) (x)

/* static void NAME(total, x, n, scale, first) for a total of TYPE */
#define ACCUMULATE(NAME, TYPE, LOAD, STORE)                                                                            \
  static void NAME(void *total, const real *x, int64_t n, stat scale, int64_t first) {                                 \
    TYPE *sum = total;                                                                                                 \
    if (first) {                                                                                                       \
      _Pragma("omp parallel for simd schedule(static)") for (int64_t k = 0; k < n; k++) sum[k] =                       \
          STORE(scale * load(x[k]));                                                                                   \
    } else {                                                                                                           \
      _Pragma("omp parallel for simd schedule(static)") for (int64_t k = 0; k < n; k++) sum[k] =                       \
          STORE(LOAD(sum[k]) + scale * load(x[k]));                                                                    \
    }                                                                                                                  \
  }
ACCUMULATE(into_real, real, load, store)
ACCUMULATE(into_stat, stat, SAME, SAME)

pg_status PG_CPU(accumulate)(const pg_call *call) {
  const accumulate_views v = accumulate_of(call);
  pg_status status = expect_accumulate(call);
  if (status) return status;
  const stat scale = (stat)accumulate_floats_of(call).scale;
  const int64_t first = accumulate_ints_of(call).first;
  (v.total->dtype == PG_REAL ? into_real : into_stat)(v.total->data, v.x->data, pg_numel(v.total), scale, first);
  return PG_OK;
}
