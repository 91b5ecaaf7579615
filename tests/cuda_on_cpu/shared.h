/* A block's shared memory: NaN when handed out, with zones around every variable that nobody may write. */
#ifndef CUDA_ON_CPU_SHARED_H
#define CUDA_ON_CPU_SHARED_H

#include <cstddef>

/* What the smallest GPU that is compiled for (sm_80) lets a block have. */
static const size_t shared_most_dynamic = 163 << 10, shared_most_static = 48 << 10;

void shared_begin(size_t dynamic_bytes);
/* nullptr, or what was overrun. */
const char *shared_end();

#endif
