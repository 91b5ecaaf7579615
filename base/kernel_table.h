/* The kernels, one row each; filled by the build from the ops' headers (kernels/CMakeLists.txt). */
#ifndef PERIGEE_KERNEL_TABLE_H
#define PERIGEE_KERNEL_TABLE_H

#include "isas.h"
#include "kernel.h"

typedef struct pg_kernel_instance {
  pg_kernel_function run;
  pg_scratch_function scratch; /* NULL: needs none */
} pg_kernel_instance;

typedef struct pg_kernel_entry {
  const char *name;
  pg_kernel_instance cpu[PG_ISAS][PG_INSTANCES]; /* [instruction set][dtype] */
} pg_kernel_entry;

/* A plugin's kernels, from kernels/<op>/cuda.cu (or cuda.c), sorted by name. */
typedef struct pg_cuda_kernel_entry {
  const char *name;
  pg_kernel_instance instance[PG_INSTANCES];
} pg_cuda_kernel_entry;

extern const pg_cuda_kernel_entry pg_cuda_kernel_table[]; /* ends with a row whose name is NULL */

extern const pg_kernel_entry pg_kernel_table[]; /* ends with a row whose name is NULL */
extern const char *const pg_kernel_isa_names[PG_ISAS]; /* of this build's instruction sets, then NULL */

#endif
