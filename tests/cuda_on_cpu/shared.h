/* A block's shared memory: NaN when handed out, with zones around every variable that nobody may write. */
#ifndef CUDA_ON_CPU_SHARED_H
#define CUDA_ON_CPU_SHARED_H

#include <cstddef>

/* What GPUs 8.6 and 8.9, those with the least, let a block have: static and dynamic, and of it static. */
static const size_t shared_most = 99 << 10, shared_most_static = 48 << 10;

void shared_begin(size_t dynamic_bytes);
/* nullptr, or what was overrun. */
const char *shared_end();

#endif
