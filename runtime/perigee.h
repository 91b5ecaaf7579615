/* Perigee's C interface, on top of base/types.h. LuaJIT's ffi.cdef reads both files verbatim, so they hold declarations
 * only: no preprocessor, no inline code. C code includes "api.h", which adds what this file needs.
 *
 * Every function that can fail returns a pg_status. On failure pg_last_error() says, for the calling
 * thread, what was expected and what came. The library never exits, aborts or prints.
 * Sizes and strides count elements, byte counts say so in their name. Dimensions count from 0. */

const char *pg_version(void);

/* ---- devices --------------------------------------------------------------------------------- */

enum { PG_CPU = 0, PG_CUDA = 1, PG_DEVICES = 2 };

/* The CPU is built in. CUDA is a plugin, opened when it is first asked for: the library that PERIGEE_CUDA_LIBRARY
 * names, else libperigee_cuda.so next to this one. */
pg_status pg_device_open(int device);
const char *pg_device_name(int device);                     /* "cpu", "cuda" */
const char *pg_device_description(int device);              /* of an open device: its model and what it can do */
int pg_device_has(int device, int dtype);                   /* 1 if an open device computes in a floating dtype */
pg_status pg_device_memory(int device, int64_t *free_bytes, int64_t *total_bytes);
/* Waits for all that is queued; an error of it comes out here. */
pg_status pg_device_synchronise(int device);

/* 1: a device may compute float32 products from TF32 (10 bits of mantissa). 0 unless a recipe asks for it. */
int pg_tf32(void);
void pg_tf32_set(int allowed);

/* Choices among equals (algorithms of a vendor's library) are timed once and kept, so that timing never changes bits: a
 * run saves them. Keys and values are texts without white space. */
int pg_choice_count(void);
const char *pg_choice_key(int choice);
const char *pg_choice_value(int choice);
const char *pg_choice_find(const char *key);                /* NULL where none was made */
pg_status pg_choice_keep(const char *key, const char *value); /* takes the place of an earlier one */

/* ---- memory ---------------------------------------------------------------------------------- */

/* The purpose of an allocation; every byte is accounted under one of these. */
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
/* The bytes that a run is planned to hold on a device, for messages; 0: not known. */
void pg_memory_expect(int device, int64_t bytes);
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

/* Numbers on their way from a device to the host: copies into page-locked memory that nobody waits for until they are
 * wanted. On the CPU they are there at once. */
typedef struct pg_reading pg_reading;

pg_status pg_reading_new(pg_reading **out, int device, int64_t bytes);
void pg_reading_free(pg_reading *r);
/* Queues a contiguous tensor's bytes for byte `offset` of the reading. */
pg_status pg_reading_add(pg_reading *r, int64_t offset, const pg_tensor *t);
/* After the last: what was added belongs together. */
pg_status pg_reading_close(pg_reading *r);
/* The bytes, once they are there; the reading may be filled again afterwards. */
pg_status pg_reading_wait(pg_reading *r, const void **host);

/* ---- kernels --------------------------------------------------------------------------------- */

/* Kernels are known by name; the list is made from the folders of kernels/ when the library is built. */
int pg_kernel_count(void);
const char *pg_kernel_name(int kernel);
int pg_kernel_find(const char *name);                       /* -1 if there is none */
int pg_kernel_available(int kernel, int device, int dtype); /* 1 or 0 */

/* Scratch bytes that a call needs. Vendor primitives are built here, so a first call may take a while.
 * `views` may have data == NULL. `dtype` picks the instance (see base/kernel.h). */
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
/* The same for what changes from run to run: where a captured graph reads another address, the contents are copied to
 * that before it runs. */
pg_status pg_executable_feed(pg_executable *e, int slot, pg_tensor *t);
/* On a device with queues the calls are queued: directly in the first run, from then on as one captured graph. */
pg_status pg_executable_run(pg_executable *e);
/* Runs once with a clock (on a device with queues, its own) around every call; seconds[n_calls]. */
pg_status pg_executable_profile(pg_executable *e, double *seconds);
int pg_executable_calls(const pg_executable *e);
int64_t pg_executable_arena_bytes(const pg_executable *e);

/* ---- machine --------------------------------------------------------------------------------- */

/* An allocator for LuaJIT (lua_Alloc) that gives at most `left` more bytes than it takes back, and counts in held[k] the
 * bytes of the blocks that owner k made, k > 0. `data` in a call is this structure, whose `allocate` and `data` are those
 * of the allocator behind it. Numbers are doubles, which Lua reads without making an object. */
enum { PG_LUA_OWNERS = 64 };
typedef struct {
  void *(*allocate)(void *data, void *block, size_t before, size_t after);
  void *data;
  double left;
  int owner; /* of the blocks that are made from now on; 0: the program's own, which are not counted */
  double held[64];
} pg_lua_memory;
pg_lua_memory *pg_lua_memory_get(void); /* the one of this process */
void *pg_lua_allocate(void *data, void *block, size_t before, size_t after);

double pg_clock_seconds(void);              /* monotonic */
int pg_threads(void);
pg_status pg_threads_set(int n);
/* Whether threads sleep soon when they wait for each other, since others want the processors too; executables look for
 * that while they run. Without effect where GOMP_SPINCOUNT or OMP_WAIT_POLICY is set. */
void pg_waiting_share(int others);
int pg_waiting_is_shared(void);
void pg_waiting_watch(void);                /* a look, at most twice a second */
const char *pg_cpu_isa(void);               /* the kernels chosen: "x86-64-v4 + bf16", "x86-64-v3", "baseline", ... */
const char *pg_cpu_name(void);
const char *pg_library_versions(void);      /* "libpng 1.6.39, zlib 1.2.13" */
int64_t pg_resident_bytes(void);            /* this process's resident set now */
/* SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU: after install, the first only sets a flag, a second
 * SIGINT ends the process. Those that were ignored before stay ignored, and so are SIGPIPE and SIGXFSZ. */
pg_status pg_signals_install(void);
int pg_signals_pending(void);               /* 0, or the signal's number */
void pg_signals_clear(void);

/* ---- consoles -------------------------------------------------------------------------------- */

/* A Unix socket (mode 0600, same user only) that is served between steps and never waits for a client. What goes over
 * it are frames of at most 1 MiB. A client that sends more, or leaves 4 MiB unread, is sent away. */
typedef struct pg_console pg_console;
enum { PG_CONSOLE_NOTHING = 0, PG_CONSOLE_OPENED = 1, PG_CONSOLE_FRAME = 2, PG_CONSOLE_CLOSED = 3 };

/* The socket of a dead process at `path` is replaced; one that is served is an error. */
pg_status pg_console_listen(pg_console **out, const char *path);
void pg_console_free(pg_console *c);
/* Takes in what has come, after waiting up to `milliseconds` for it (0: one system call); 1 if there is something for
 * pg_console_next, else 0. */
int pg_console_poll(pg_console *c, int milliseconds);
/* The next event, clients in turn, and its client (numbers from 1, never used twice). A frame is valid until the next
 * call of a console's function. */
int pg_console_next(pg_console *c, int64_t *client, const char **frame, int64_t *bytes);
/* Queues a frame; a client that is gone is ignored. */
void pg_console_send(pg_console *c, int64_t client, const void *bytes, int64_t n);

/* The client's side. */
typedef struct pg_console_link pg_console_link;
pg_status pg_console_connect(pg_console_link **out, const char *path);
void pg_console_disconnect(pg_console_link *link);
pg_status pg_console_write(pg_console_link *link, const void *bytes, int64_t n);
/* *bytes = -1: nothing yet, after so many milliseconds or a signal. An error once the server is gone. */
pg_status pg_console_read(pg_console_link *link, int milliseconds, const char **frame, int64_t *bytes);

/* ---- files ----------------------------------------------------------------------------------- */

/* Messages name the file. PG_ERROR_IO: the system refused; PG_ERROR_FORMAT: the file is too short or malformed. */
pg_status pg_file_size(const char *path, int64_t *bytes);
pg_status pg_disk_free(const char *folder, int64_t *bytes); /* what its disk has left for this user */
pg_status pg_disk_sync(const char *folder); /* waits until all that was written to its disk is there */
/* The file's bytes [offset, offset + bytes) to host memory. */
pg_status pg_file_read(const char *path, int64_t offset, void *host, int64_t bytes);
/* The bytes at `offset` fill a contiguous tensor on any device, as they are. *crc, unless NULL: their CRC-32. */
pg_status pg_file_read_tensor(const char *path, int64_t offset, pg_tensor *t, uint32_t *crc);
/* CRC-32 (that of zip and PNG) of the bytes [offset, offset + bytes). */
pg_status pg_file_crc32(const char *path, int64_t offset, int64_t bytes, uint32_t *crc);
/* What a file is that begins with these bytes, and what to do with it where something else was expected: "a TIFF picture;
 * convert it to PNG". NULL: nothing known. */
const char *pg_file_recognise(const void *beginning, int64_t bytes);
/* The names in a folder, zero-terminated, one after another, in any order, "." and ".." too; *bytes is their length. If that
 * is more than `room`, not all are there. */
pg_status pg_folder_list(const char *path, char *names, int64_t room, int64_t *bytes);

/* A file that appears whole or not at all: written next to `path` under a temporary name, synced and renamed by
 * commit. A writer that fails or is aborted leaves neither the temporary file nor a change at `path`. */
typedef struct pg_writer pg_writer;

pg_status pg_writer_open(pg_writer **out, const char *path);
/* Removes a temporary file that a killed process left; one that a writer still holds, in whatever process, stays. */
pg_status pg_writer_sweep(const char *part);
/* The temporary file is `path`.part and outlives pg_writer_suspend and the process: what it holds is kept, *bytes says
 * how much, and writing continues at its end. One writer at a time may hold it. */
pg_status pg_writer_resume(pg_writer **out, const char *path, int64_t *bytes);
/* Writes at the end of `path` itself, which other processes may do too; ended by pg_writer_suspend alone. */
pg_status pg_writer_append(pg_writer **out, const char *path);
pg_status pg_writer_write(pg_writer *w, const void *host, int64_t bytes);      /* at the end */
/* Contiguous, from any device; *crc, unless NULL: the CRC-32 of its bytes. */
pg_status pg_writer_write_tensor(pg_writer *w, const pg_tensor *t, uint32_t *crc);
pg_status pg_writer_write_at(pg_writer *w, int64_t offset, const void *host, int64_t bytes); /* over what is there */
pg_status pg_writer_read_at(pg_writer *w, int64_t offset, void *host, int64_t bytes);
pg_status pg_writer_truncate(pg_writer *w, int64_t bytes);
int64_t pg_writer_bytes(const pg_writer *w);
/* CRC-32 (that of zip and PNG) of the bytes [offset, offset + bytes). */
pg_status pg_writer_crc32(pg_writer *w, int64_t offset, int64_t bytes, uint32_t *crc);
/* Each of these ends the writer, also when it fails. */
pg_status pg_writer_commit(pg_writer *w);
/* As commit, but without waiting for the disk: for many files, which pg_disk_sync then makes outlast a power cut. */
pg_status pg_writer_place(pg_writer *w);
pg_status pg_writer_suspend(pg_writer *w);
void pg_writer_abort(pg_writer *w);
/* CRC-32 of what came before, `crc` (0: nothing), followed by these bytes. */
uint32_t pg_crc32(uint32_t crc, const void *host, int64_t bytes);
/* The same of one record of a file: it starts from the file's `seed` and the record's number, so that none passes for
 * another. */
uint32_t pg_record_crc32(uint32_t seed, int64_t number, const void *host, int64_t bytes);

/* A file that one process at a time may hold, made if it isn't there; it is released by pg_lock_free or with the
 * process, however that ends. Where another has it, *out is NULL and *holder that one's number (0: not known). */
typedef struct pg_lock pg_lock;
pg_status pg_lock_take(pg_lock **out, const char *path, int64_t *holder);
void pg_lock_free(pg_lock *l);
/* Test hook: after `bytes` more, writes fail as on a full disk; bytes < 0 turns it off. */
void pg_writer_fail_after(int64_t bytes);

/* Where a member of an archive lies: `packed` bytes at `offset`, as they are or deflated (RFC 1951) from `bytes`. */
typedef struct pg_place {
  int64_t offset, packed, bytes;
  uint32_t crc;             /* where `summed`: CRC-32 of the unpacked bytes, which is checked */
  int32_t archive;          /* which of several, from 0 */
  int32_t deflated, summed; /* 0 or 1 */
} pg_place;
enum { PG_MEMBER_MAX_BYTES = 1 << 30 }; /* of one that is deflated or decoded */
/* A member's bytes, unpacked, to host memory [place->bytes]; `archive` is the file, `name` what an error calls the member. */
pg_status pg_member_read(const char *archive, const char *name, const pg_place *place, void *host);

enum { PG_PICTURE_MAX_SIDE = 16384 };
/* A PNG, JPEG or WebP file, told by how it begins, as a new uint8 tensor [H,W,3]: grey, palette and CMYK expanded, alpha
 * dropped, 16 bits scaled to 8. */
pg_status pg_picture_load(pg_tensor **out, const char *path);
/* The same from the bytes of such a file; `name` is what an error calls it. */
pg_status pg_picture_decode(pg_tensor **out, const char *name, const void *bytes, int64_t size);
/* ADM's centre crop of a uint8 tensor [H,W,3], in one piece on the CPU: a new tensor [side,side,3]. */
pg_status pg_picture_centre_crop(pg_tensor **out, const pg_tensor *image, int64_t side);
int pg_webp_available(void);                /* 1 where libwebp is there, else 0 */
/* uint8 [H,W,3] or [H,W,1], contiguous; the file appears whole or not at all. */
pg_status pg_png_write(const char *path, const pg_tensor *image);
/* The same at a writer's end; `packed` 0: without compression, which is fast. `path` is what an error calls it. */
pg_status pg_png_encode(pg_writer *w, const char *path, const pg_tensor *image, int packed);

/* ---- loader ---------------------------------------------------------------------------------- */

/* Batches of samples, prefetched by threads. A sample has fields (image, label, latent, ...); sample k of the endless
 * sequence is permutation[k / count][k mod count], a Philox permutation for each epoch, and batch `step` holds the
 * positions step·stride + first ... + batch − 1. A batch depends on the options and the step alone. */
typedef struct pg_loader pg_loader;

enum { PG_FLIP_ALWAYS = 2 };

typedef struct pg_loader_options {
  int64_t count;        /* samples in the data set */
  int64_t batch;        /* samples in one batch */
  int64_t stride;       /* positions from one step to the next: the whole batch, where ranks share one; 0: batch */
  int64_t first;        /* this rank's first position in a step */
  uint64_t seed;
  int32_t shuffle;      /* 0: the order of the data */
  int32_t flip;         /* 1: augmented fields are mirrored left to right with probability 1/2; PG_FLIP_ALWAYS */
  int32_t crop_padding; /* p > 0: augmented fields are shifted by up to p pixels each way, zeros moving in */
  int32_t threads;      /* 0: batches are made in pg_loader_next */
  int32_t depth;        /* batches made ahead */
} pg_loader_options;

pg_status pg_loader_new(pg_loader **out, const pg_loader_options *options);
/* Fields, numbered from 0 as they are added. Those with `augment` are uint8 [H,W,C].
 * A CPU tensor [count, ...], retained: */
pg_status pg_loader_add_tensor(pg_loader *l, pg_tensor *data, int augment);
/* One file with `count` records of `shape`, the first at byte `offset`: */
pg_status pg_loader_add_file(pg_loader *l, const char *path, int64_t offset, int dtype, int ndim, const int64_t *shape,
                             int augment);
/* One file, mapped: sample k's record of `shape`, number k, begins at byte `offset` + k·`stride`, that of its mirror
 * image `mirrored` bytes, a multiple of `stride`, after that. Behind each stands its pg_record_crc32, which is checked
 * when the record is first read. The file must not be shortened while the loader lives: */
pg_status pg_loader_add_mapped(pg_loader *l, const char *path, int64_t offset, int64_t stride, int64_t mirrored,
                               uint32_t seed, int dtype, int ndim, const int64_t *shape);
/* One file a sample, FOLDER/NAME, `names` being `count` zero-terminated strings one after another. Each must start with
 * `header` and go on with one record of `shape`, nothing more: */
pg_status pg_loader_add_files(pg_loader *l, const char *folder, const char *names, int64_t names_bytes,
                              const void *header, int64_t header_bytes, int dtype, int ndim, const int64_t *shape);
/* One picture a sample (PNG, JPEG, WebP), decoded to uint8 [height,width,3]. resize PG_RESIZE_FIT: scaled
 * (bicubic, antialiased) until the shorter side fits, then cropped at the centre; PG_RESIZE_CROP: ADM's centre crop, where
 * height and width are equal; otherwise another size is an error: */
enum { PG_RESIZE_NONE = 0, PG_RESIZE_FIT = 1, PG_RESIZE_CROP = 2 };
pg_status pg_loader_add_pictures(pg_loader *l, const char *folder, const char *names, int64_t names_bytes, int64_t height,
                            int64_t width, int resize, int augment);
/* The files of a field (added by pg_loader_add_files or _pictures, whose folder is then "") are members of archives, whose
 * `n` names are zero-terminated, one after another: `places` [count]. */
pg_status pg_loader_archives(pg_loader *l, int field, const char *archives, int64_t archives_bytes, int n,
                             const pg_place *places);
/* Where a sample is mirrored, such a field reads its file of the same name in another folder, or of other places [count]
 * in the same archives: one of the two, the other NULL. */
pg_status pg_loader_mirrored(pg_loader *l, int field, const char *folder, const pg_place *places);
/* The int64 numbers of a field are checked as they are read: from 0 to `below` − 1. `what` begins the error: "mine: label". */
pg_status pg_loader_below(pg_loader *l, int field, int64_t below, const char *what);
/* A field that is not wanted is not read, and pg_loader_next takes NULL for it. */
pg_status pg_loader_want(pg_loader *l, int field, int wanted);
/* The next batch will be `step`'s. */
pg_status pg_loader_seek(pg_loader *l, int64_t step);
/* Fills one contiguous tensor [batch, ...] a field, on any device, and, unless NULL, `indices` (int64 [batch]: the
 * samples' numbers in the data set) and *step. A worker's error comes out here; the loader then stays at that step. */
pg_status pg_loader_next(pg_loader *l, int fields, pg_tensor *const *batch, pg_tensor *indices, int64_t *step);
void pg_loader_free(pg_loader *l);
