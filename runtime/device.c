/* Devices and the kernels they have. CUDA is a plugin, opened on demand. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

/* ---- the CPU ---- */

static pg_status cpu_allocate(void **out, int64_t bytes) {
  /* Big blocks start at a 2 MiB boundary and ask for huge pages: fewer page faults and TLB misses. */
  const bool big = bytes >= (4 << 20);
  if (posix_memalign(out, big ? (size_t)2 << 20 : 64, (size_t)bytes)) return PG_ERROR_MEMORY;
#ifdef MADV_HUGEPAGE
  if (big) madvise(*out, (size_t)bytes, MADV_HUGEPAGE);
#endif
  return PG_OK;
}
static void cpu_release(void *data) { free(data); }
static pg_status cpu_copy(void *to, const void *from, int64_t bytes) {
  memmove(to, from, (size_t)bytes);
  return PG_OK;
}
static const pg_kernel_instance *cpu_kernel(int kernel, int dtype) { return &pg_kernel_table[kernel].cpu[pg_cpu_isa_number()][dtype]; }

static pg_status cpu_memory(int64_t *free_bytes, int64_t *total_bytes) {
  const int64_t page = sysconf(_SC_PAGESIZE);
  *free_bytes = sysconf(_SC_AVPHYS_PAGES) * page;
  *total_bytes = sysconf(_SC_PHYS_PAGES) * page;
  return PG_OK;
}

static const pg_device_ops cpu = {
  .name = "cpu", .allocate = cpu_allocate, .release = cpu_release, .from_host = cpu_copy, .to_host = cpu_copy,
  .within = cpu_copy, .kernel = cpu_kernel, .memory = cpu_memory, .description = "",
};

/* ---- plugins ---- */

static const pg_device_ops *cuda; /* once it is open */

/* libperigee_cuda.so next to this library, or what PERIGEE_CUDA_LIBRARY says. */
static void plugin_path(char *path, size_t room) {
  const char *given = getenv("PERIGEE_CUDA_LIBRARY");
  Dl_info self;
  const char *slash = dladdr((void *)plugin_path, &self) && self.dli_fname ? strrchr(self.dli_fname, '/') : NULL;
  if (given && *given) snprintf(path, room, "%s", given);
  else if (slash) snprintf(path, room, "%.*s/libperigee_cuda.so", (int)(slash - self.dli_fname), self.dli_fname);
  else snprintf(path, room, "libperigee_cuda.so");
}

static pg_status open_cuda(void) {
  char path[1024];
  plugin_path(path, sizeof path);
  if (strchr(path, '/') && access(path, R_OK))
    return pg_error(PG_ERROR_DEVICE,
                    "cuda: there is no %s; --device cuda builds it where nvcc and cuBLAS are found (perigee doctor says more)",
                    path);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return pg_error(PG_ERROR_DEVICE, "cuda: the plugin cannot be loaded: %s", dlerror());
  pg_plugin_function open;
  *(void **)&open = dlsym(library, PG_PLUGIN_FUNCTION);
  if (!open) return pg_error(PG_ERROR_DEVICE, "cuda: %s is not a plugin of this program", path);
  cuda = open();
  return cuda ? PG_OK : PG_ERROR_DEVICE; /* the library stays: CUDA cannot be unloaded */
}

pg_status pg_device_open(int device) {
  if (device == PG_CPU) return pg_cpu_isa_check();
  if (device == PG_CUDA && cuda) return PG_OK;
  return device == PG_CUDA ? open_cuda() : pg_error(PG_ERROR_DEVICE, "device: unknown device number %d", device);
}

const pg_device_ops *pg_device(int device) {
  if (device == PG_CPU) return &cpu;
  return pg_device_open(device) ? NULL : cuda;
}

const char *pg_device_name(int device) { return device == PG_CPU ? "cpu" : device == PG_CUDA ? "cuda" : "unknown"; }

const char *pg_device_description(int device) {
  const pg_device_ops *ops = pg_device(device);
  return ops ? ops->description : "";
}

int pg_device_has(int device, int dtype) {
  const pg_device_ops *ops = pg_device(device);
  if (!ops || ops == &cpu) return ops != NULL;
  return dtype == PG_FLOAT32 || dtype == PG_BFLOAT16;
}

pg_status pg_device_memory(int device, int64_t *free_bytes, int64_t *total_bytes) {
  const pg_device_ops *ops = pg_device(device);
  return ops ? ops->memory(free_bytes, total_bytes) : PG_ERROR_DEVICE;
}

pg_status pg_device_synchronise(int device) {
  const pg_device_ops *ops = pg_device(device);
  if (!ops) return PG_ERROR_DEVICE;
  return ops->queues ? ops->queues->synchronise() : PG_OK;
}

/* ---- precision ---- */

static int tf32;
int pg_tf32(void) { return tf32; }
void pg_tf32_set(int allowed) { tf32 = allowed != 0; }

/* ---- kernels ---- */

int pg_kernel_count(void) {
  static int count = -1;
  if (count < 0) {
    count = 0;
    while (pg_kernel_table[count].name) count++;
  }
  return count;
}

const char *pg_kernel_name(int kernel) {
  return kernel >= 0 && kernel < pg_kernel_count() ? pg_kernel_table[kernel].name : "unknown";
}

int pg_kernel_find(const char *name) {
  int low = 0, high = pg_kernel_count() - 1; /* the table is sorted */
  while (low <= high) {
    int middle = (low + high) / 2, order = strcmp(name, pg_kernel_table[middle].name);
    if (order == 0) return middle;
    if (order < 0) high = middle - 1;
    else low = middle + 1;
  }
  return -1;
}

const pg_kernel_instance *pg_kernel_instance_find(int kernel, int device, int dtype) {
  const pg_device_ops *ops = pg_device(device);
  if (!ops) return NULL;
  if (kernel < 0 || kernel >= pg_kernel_count() || dtype < 0 || dtype >= PG_INSTANCES) {
    pg_error(PG_ERROR_ARGUMENT, "kernel %d has no instance for dtype %d", kernel, dtype);
    return NULL;
  }
  const pg_kernel_instance *instance = ops->kernel(kernel, dtype);
  if (!instance || !instance->run) {
    pg_error(PG_ERROR_UNSUPPORTED, "%s is not available on %s in %s", pg_kernel_name(kernel), ops->name,
             pg_dtype_name(dtype));
    return NULL;
  }
  return instance;
}

int pg_kernel_available(int kernel, int device, int dtype) { return pg_kernel_instance_find(kernel, device, dtype) != NULL; }
