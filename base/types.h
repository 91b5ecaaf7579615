/* The types that kernels and the runtime share: statuses and views. LuaJIT's ffi.cdef reads this file verbatim,
 * and runtime/perigee.h after it, so it holds declarations only. C code includes "kernel.h". */

enum {
  PG_OK = 0,
  PG_ERROR_ARGUMENT = 1,    /* a shape, dtype or value that the function does not take */
  PG_ERROR_MEMORY = 2,      /* an allocation failed */
  PG_ERROR_IO = 3,          /* the operating system refused a file operation */
  PG_ERROR_FORMAT = 4,      /* a file's content is not what its format says */
  PG_ERROR_DEVICE = 5,      /* a device or its library failed */
  PG_ERROR_UNSUPPORTED = 6  /* right, but not available on this device or build */
};
typedef int pg_status;

const char *pg_last_error(void);

enum { PG_MAX_DIMS = 8, PG_MAX_VIEWS = 16, PG_MAX_ATTRIBUTES = 12 };

/* A tensor as a kernel sees it. `stride` counts elements; data is NULL for an absent argument. */
typedef struct pg_view {
  void *data;
  int32_t dtype; /* dtypes.h */
  int32_t ndim;
  int64_t shape[PG_MAX_DIMS];
  int64_t stride[PG_MAX_DIMS];
} pg_view;
