/* A table without kernels and a processor of no kind: readers need neither, and OpenMP stays out. */
#include "internal.h"

const pg_kernel_entry pg_kernel_table[] = {{0, {{{0, 0}}}}};
const char *const pg_kernel_isa_names[PG_ISAS] = {"baseline"};

int pg_cpu_isa_number(void) { return 0; }
pg_status pg_cpu_isa_check(void) { return PG_OK; }
void pg_waiting_watch(void) {}
