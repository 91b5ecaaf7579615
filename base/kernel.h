/* The parts of every kernel, on every device.
 *
 * A kernel is a function of one pg_call. It reads views, attributes and scratch; it allocates nothing, knows no
 * file, no program and no Lua, and returns a status. Order of the views, as a law: outputs, saved values, inputs.
 *
 * A kernel's contract is `kernels/<op>/<op>.h`. These lines are code and documentation alike:
 *
 *   PG_KERNEL(layernorm, y, mean, rstd, x, weight, bias)   the kernel and its views, in order
 *   PG_INTS(argmax, dim)                                   its integer attributes, in order, where it has any
 *   PG_FLOATS(layernorm, epsilon)                          its real attributes
 *   PG_KERNEL_PLAN(mse)                                    it needs scratch
 *
 * and above them stand, for each name, shape, dtype, role, = or +=, what may alias, and the source (paper and
 * equation). A kernel reads its call by these names alone:
 *
 *   pg_status PG_CPU(layernorm)(const pg_call *call) {
 *     const layernorm_views v = layernorm_of(call);
 *     const double epsilon = layernorm_floats_of(call).epsilon;
 *     ... v.x->shape, v.weight->data ...                   NULL where pg_present(v.weight) is 0
 *
 * The build collects the names from these lines into the table that pg_kernel_find() searches, and a test holds the
 * views and attributes against the ops in lua/perigee/core/ops; there is no other list. A kernel with a PG_KERNEL_PLAN
 * line has a second function, int64_t PG_CPU(mse_scratch)(const pg_call *call): scratch bytes, < 0 for a failure, after
 * pg_error(). It is the place to build vendor primitives too. Views carry shapes there, but data may be NULL.
 *
 * Instances. `kernels/<op>/cpu.c` is compiled once per instruction set and dtype (cpu.h), `kernels/<op>/cuda.cu` once
 * per dtype (cuda.h), and the call's instance dtype picks among them. An op that needs scratch on one device alone has
 * a PG_KERNEL_PLAN line all the same; the other's function returns 0. In a contract, `real` is the instance's dtype,
 * `stat` is float32 for float32 and bfloat16 and float64 for float64 (statistics, losses, coefficients). Other dtypes
 * are written out.
 *
 * Views are contiguous, in row-major order, unless the contract says "any strides". */
#ifndef PERIGEE_KERNEL_H
#define PERIGEE_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "arithmetic.h"
#include "dtypes.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* kernels of other devices live in plugins */

#include "types.h"

/* Stores the message for pg_last_error() and returns `status`. Messages say what was expected and what came:
 * "layernorm: x is [8,256,1152], scale is [8,1024]; the last dimensions must match". */
pg_status pg_error(pg_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes a view's shape, "[8,256,1152]", into one of a few rotating per-thread buffers. */
const char *pg_shape_text(const pg_view *v);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

/* Services that a kernel may ask for, on devices whose vendor's library offers several algorithms. */
typedef struct pg_services {
  /* 1: float32 products may be computed from TF32 (10 bits of mantissa). */
  int (*tf32)(void);
  /* Choices among equals are timed once, while a program is planned, and kept, so that timing never changes bits. Keys
   * and values are texts without white space; NULL: no choice was made. */
  const char *(*choice_find)(const char *key);
  pg_status (*choice_keep)(const char *key, const char *value);
  /* The device's memory while candidates are timed; give_back takes NULL too. */
  pg_status (*borrow)(void **memory, int64_t bytes);
  void (*give_back)(void *memory, int64_t bytes);
  /* Counts a call that a vendor's kernel served (1), or our own although the vendor's was asked for (0). */
  void (*served)(int theirs);
} pg_services;

typedef struct pg_call {
  int n;                            /* views given, absent ones included */
  pg_view v[PG_MAX_VIEWS];          /* absent: data == NULL and ndim == -1 */
  int64_t i[PG_MAX_ATTRIBUTES];     /* integer attributes, in the contract's order */
  double f[PG_MAX_ATTRIBUTES];      /* real attributes */
  void *scratch;                    /* 64-byte aligned */
  int64_t scratch_bytes;
  void *stream;                     /* the device's queue; NULL on the CPU */
  const pg_services *services;      /* of the device; NULL on the CPU */
} pg_call;

typedef pg_status (*pg_kernel_function)(const pg_call *call);
typedef int64_t (*pg_scratch_function)(const pg_call *call);

/* ---- contracts ---- */

/* A view by its name in the contract, never NULL. */
typedef const pg_view *pg_named_view;

#define PG_KERNEL(name, ...) \
  typedef struct name##_views { \
    pg_named_view __VA_ARGS__; \
  } name##_views; \
  static inline name##_views name##_of(const pg_call *call) { \
    name##_views views; \
    pg_name_views((pg_named_view *)&views, (int)(sizeof views / sizeof(pg_named_view)), call); \
    return views; \
  } \
  PG_ENTRIES(pg_status, name)

#define PG_KERNEL_PLAN(name) PG_ENTRIES(int64_t, name##_scratch)

#define PG_INTS(name, ...) \
  typedef struct name##_ints { \
    int64_t __VA_ARGS__; \
  } name##_ints; \
  static inline name##_ints name##_ints_of(const pg_call *call) { \
    name##_ints ints; \
    memcpy(&ints, call->i, sizeof ints); \
    return ints; \
  }

#define PG_FLOATS(name, ...) \
  typedef struct name##_floats { \
    double __VA_ARGS__; \
  } name##_floats; \
  static inline name##_floats name##_floats_of(const pg_call *call) { \
    name##_floats floats; \
    memcpy(&floats, call->f, sizeof floats); \
    return floats; \
  }

/* A kernel's functions as this file sees them: those of the one instance that it is compiled for (cpu.c, cuda.cu) or,
 * where host code calls a GPU vendor's library (cuda.c), those of both dtypes. */
#ifdef __cplusplus
#define PG_ENTRY extern "C"
#else
#define PG_ENTRY
#endif
#ifdef PG_SUFFIX
#define PG_PASTE2(a, b) a##b
#define PG_PASTE(a, b) PG_PASTE2(a, b)
#define PG_INSTANCE(name) PG_PASTE(name, PG_SUFFIX)
#define PG_ENTRIES(result, name) PG_ENTRY result PG_INSTANCE(name)(const pg_call *call);
#else
#define PG_ENTRIES(result, name) \
  PG_ENTRY result name##_cuda_float32(const pg_call *call); \
  PG_ENTRY result name##_cuda_bfloat16(const pg_call *call);
#endif

static const pg_view pg_absent_view = {NULL, 0, -1, {0}, {0}};

static inline int pg_present(pg_named_view v) { return v->ndim >= 0; }

/* The view at place k, for the few functions that take views as they come. */
static inline pg_named_view pg_view_at(const pg_call *call, int k) {
  return k < call->n ? &call->v[k] : &pg_absent_view;
}

static inline void pg_name_views(pg_named_view *views, int count, const pg_call *call) {
  for (int k = 0; k < count; k++) views[k] = pg_view_at(call, k);
}

/* Ends the kernel with PG_ERROR_ARGUMENT unless the condition holds. */
#define PG_EXPECT(condition, ...) \
  do { \
    if (!(condition)) return pg_error(PG_ERROR_ARGUMENT, __VA_ARGS__); \
  } while (0)

static inline int64_t pg_numel(const pg_view *v) {
  int64_t n = 1;
  for (int d = 0; d < v->ndim; d++) n *= v->shape[d];
  return n;
}

static inline int pg_contiguous(const pg_view *v) {
  int64_t expected = 1;
  for (int d = v->ndim - 1; d >= 0; d--) {
    if (v->shape[d] != 1 && v->stride[d] != expected) return 0;
    expected *= v->shape[d];
  }
  return 1;
}

static inline int pg_same_shape(const pg_view *a, const pg_view *b) {
  if (a->ndim != b->ndim) return 0;
  for (int d = 0; d < a->ndim; d++)
    if (a->shape[d] != b->shape[d]) return 0;
  return 1;
}

#endif
