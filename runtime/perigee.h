/* Perigee's whole C interface. LuaJIT's ffi.cdef reads this file verbatim, so it holds declarations
 * only: no preprocessor, no inline code. C code includes "api.h", which adds what this file needs.
 *
 * Every function that can fail returns a pg_status. On failure pg_last_error() says, for the calling
 * thread, what was expected and what came. The library never exits, aborts or prints.
 * Sizes and strides count elements, byte counts say so in their name. Dimensions count from 0. */

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
const char *pg_version(void);

/* ---- dtypes and views ------------------------------------------------------------------------ */

enum { PG_FLOAT32 = 0, PG_FLOAT64 = 1, PG_BFLOAT16 = 2, PG_INT32 = 3, PG_INT64 = 4, PG_UINT8 = 5, PG_DTYPES = 6 };
enum { PG_MAX_DIMS = 8, PG_MAX_VIEWS = 16, PG_MAX_ATTRIBUTES = 12 };
enum { PG_CPU = 0, PG_CUDA = 1, PG_DEVICES = 2 };

/* What a kernel sees of a tensor. `stride` counts elements; data is NULL for an absent argument. */
typedef struct pg_view {
  void *data;
  int32_t dtype;
  int32_t ndim;
  int64_t shape[PG_MAX_DIMS];
  int64_t stride[PG_MAX_DIMS];
} pg_view;

int64_t pg_dtype_bytes(int dtype);

/* ---- memory ---------------------------------------------------------------------------------- */

/* What an allocation is for; every byte is accounted under one of these. */
enum {
  PG_PURPOSE_OTHER = 0, PG_PURPOSE_PARAMETERS = 1, PG_PURPOSE_GRADIENTS = 2, PG_PURPOSE_OPTIMIZER = 3,
  PG_PURPOSE_EMA = 4, PG_PURPOSE_ARENA = 5, PG_PURPOSE_DATA = 6, PG_PURPOSE_TEACHER = 7,
  PG_PURPOSE_SIGNAL = 8, PG_PURPOSES = 9
};
const char *pg_purpose_name(int purpose);
/* Bytes held now, and the most ever held since the last pg_memory_reset_peak, for a purpose or, with
 * purpose = -1, in all. */
int64_t pg_memory_now(int device, int purpose);
int64_t pg_memory_peak(int device, int purpose);
void pg_memory_reset_peak(int device);
/* Test hook: let n more allocations pass and fail the one after; n < 0 turns it off. */
void pg_memory_fail_after(int64_t n);

/* ---- tensors --------------------------------------------------------------------------------- */

/* An opaque, reference-counted view of reference-counted storage. */
typedef struct pg_tensor pg_tensor;

/* New storage, contents undefined (a test build poisons them with NaN). */
pg_status pg_tensor_new(pg_tensor **out, int device, int purpose, int dtype, int ndim, const int64_t *shape);
/* Another view of base's storage: `offset` elements of `dtype` past base's first element. Every element
 * reachable through shape and stride must lie inside the storage. */
pg_status pg_tensor_view(pg_tensor **out, pg_tensor *base, int64_t offset, int dtype, int ndim,
                         const int64_t *shape, const int64_t *stride);
void pg_tensor_retain(pg_tensor *t);
void pg_tensor_release(pg_tensor *t);
const pg_view *pg_tensor_info(const pg_tensor *t);
int pg_tensor_device(const pg_tensor *t);
/* Bytes of the storage behind a view. */
int64_t pg_tensor_storage_bytes(const pg_tensor *t);
/* Bytes between host memory and a contiguous tensor; `bytes` must be the tensor's size. */
pg_status pg_tensor_write(pg_tensor *t, const void *host, int64_t bytes);
pg_status pg_tensor_read(const pg_tensor *t, void *host, int64_t bytes);
/* Same dtype and number of elements, both contiguous, any devices. */
pg_status pg_tensor_copy(pg_tensor *to, const pg_tensor *from);

/* ---- kernels --------------------------------------------------------------------------------- */

/* Kernels are known by name; the list is made from the folders of kernels/ when the library is built. */
int pg_kernel_count(void);
const char *pg_kernel_name(int kernel);
int pg_kernel_find(const char *name);                       /* -1 if there is none */
int pg_kernel_available(int kernel, int device, int dtype); /* 1 or 0 */

/* Scratch bytes that a call needs. Vendor primitives are built here, so a first call may take a while.
 * `views` may have data == NULL. `dtype` picks the instance (see kernels/kernel.h). */
pg_status pg_kernel_plan(int kernel, int device, int dtype, int n, const pg_view *views, const uint8_t *present,
                         const int64_t *ints, const double *floats, int64_t *scratch_bytes);
/* One call on tensors, NULL where an argument is absent. */
pg_status pg_kernel_run(int kernel, int device, int dtype, int n, pg_tensor *const *tensors, const int64_t *ints,
                        const double *floats);

/* ---- executables ----------------------------------------------------------------------------- */

/* A list of kernel calls over one arena and external slots, built once and run many times. */
typedef struct pg_executable pg_executable;

pg_status pg_executable_new(pg_executable **out, int device, int64_t arena_bytes, int n_slots, int purpose);
void pg_executable_free(pg_executable *e);
/* Declares a value and returns its number. slot < 0: it lives in the arena at byte_offset; otherwise in
 * the tensor bound to that slot, byte_offset past that tensor's first element. */
pg_status pg_executable_value(pg_executable *e, int slot, int64_t byte_offset, int dtype, int ndim,
                              const int64_t *shape, const int64_t *stride, int *value);
/* Appends a call; value -1 is an absent argument. Scratch lies in the arena. */
pg_status pg_executable_call(pg_executable *e, int kernel, int dtype, int n, const int *values, const int64_t *ints,
                             const double *floats, int64_t scratch_offset, int64_t scratch_bytes);
/* The tensor is retained until another is bound. It must be contiguous. */
pg_status pg_executable_bind(pg_executable *e, int slot, pg_tensor *t);
pg_status pg_executable_run(pg_executable *e);
/* Runs once with a clock around every call; seconds[n_calls]. */
pg_status pg_executable_profile(pg_executable *e, double *seconds);
int pg_executable_calls(const pg_executable *e);
int64_t pg_executable_arena_bytes(const pg_executable *e);

/* ---- machine --------------------------------------------------------------------------------- */

double pg_clock_seconds(void);              /* monotonic */
int pg_threads(void);
pg_status pg_threads_set(int n);
const char *pg_cpu_isa(void);               /* the kernels chosen: "x86-64-v4", "x86-64-v3" or "baseline" */
const char *pg_cpu_name(void);
const char *pg_library_versions(void);      /* "oneDNN 2.6.0, libpng 1.6.39, ..." */
int64_t pg_resident_bytes(void);            /* this process's resident set now */
/* SIGINT and SIGTERM: after install, the first only sets a flag, a second SIGINT ends the process. */
pg_status pg_signals_install(void);
int pg_signals_pending(void);               /* 0, or the signal's number */
void pg_signals_clear(void);
