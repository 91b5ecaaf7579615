/* Fibres: stacks that run by turns on one thread. */
#ifndef CUDA_ON_CPU_FIBRE_H
#define CUDA_ON_CPU_FIBRE_H

#include <cstddef>

struct fibre;

/* A fibre that will run `body`, which never returns; nullptr if there is no memory for its stack. */
fibre *fibre_new(void (*body)());
/* The next switch to it starts `body` anew; what its stack held is forgotten. Not for the running fibre. */
void fibre_restart(fibre *f);
/* The fibre that stands for the calling thread's own stack; to be asked for before switching from it. */
fibre *fibre_main();
/* From the running fibre to another; comes back when something switches to `from` again. */
void fibre_switch(fibre *from, fibre *to);

#endif
