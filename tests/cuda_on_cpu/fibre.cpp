#include "fibre.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#define FIBRE_UCONTEXT
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBRE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef FIBRE_ASAN
static const size_t stack_bytes = 256 << 10; /* instrumented frames are larger */
#else
static const size_t stack_bytes = 64 << 10;
#endif
static const size_t guard_bytes = 4096;

struct fibre {
#ifdef FIBRE_UCONTEXT
  ucontext_t context;
#else
  void *stack_pointer;
#endif
  void (*body)();
  unsigned char *stack; /* lowest address; nullptr for the thread's own */
  size_t bytes, colour;
  void *fake_stack;
};

static fibre main_fibre;

#ifndef FIBRE_UCONTEXT
/* cuda_on_cpu_swap(&from, to): the System V ABI's callee-saved registers go onto the stack that is left. */
asm(R"(
.text
.globl cuda_on_cpu_swap
.hidden cuda_on_cpu_swap
.type cuda_on_cpu_swap, @function
cuda_on_cpu_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_swap, .-cuda_on_cpu_swap
)");
extern "C" void cuda_on_cpu_swap(void **from, void *to);
#endif

/* Tells the sanitizer that execution has arrived on f's stack. */
static void arrived(fibre *f) {
#ifdef FIBRE_ASAN
  const void *bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(f->fake_stack, &bottom, &bytes);
  if (!main_fibre.bytes) { /* the first switch leaves the thread's own stack */
    main_fibre.stack = static_cast<unsigned char *>(const_cast<void *>(bottom));
    main_fibre.bytes = bytes;
  }
#else
  (void)f;
#endif
}

static fibre *starting;

static void enter() {
  fibre *self = starting;
  arrived(self);
  self->body();
  __builtin_trap(); /* a body never returns */
}

void fibre_restart(fibre *f) {
#ifdef FIBRE_ASAN
  ASAN_UNPOISON_MEMORY_REGION(f->stack, f->bytes);
  f->fake_stack = nullptr;
#endif
#ifdef FIBRE_UCONTEXT
  getcontext(&f->context);
  f->context.uc_stack.ss_sp = f->stack;
  f->context.uc_stack.ss_size = f->bytes;
  f->context.uc_link = nullptr;
  makecontext(&f->context, enter, 0);
#else
  void **top = reinterpret_cast<void **>(f->stack + f->bytes - f->colour); /* a multiple of 16 */
  *--top = nullptr;
  *--top = reinterpret_cast<void *>(enter); /* the address that the swap returns to: a multiple of 16 again */
  for (int k = 0; k < 6; k++) *--top = nullptr;
  f->stack_pointer = top;
#endif
}

fibre *fibre_new(void (*body)()) {
  static size_t made;
  void *memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  mprotect(memory, guard_bytes, PROT_NONE);
  fibre *f = new (std::nothrow) fibre();
  if (!f) return nullptr;
  f->body = body;
  f->stack = static_cast<unsigned char *>(memory) + guard_bytes;
  f->bytes = stack_bytes;
  f->colour = made++ % 16 * 448; /* tops at one offset in every page would share a few sets of the cache */
  fibre_restart(f);
  return f;
}

fibre *fibre_main() {
  main_fibre.bytes = 0; /* not known until the sanitizer says it */
  return &main_fibre;
}

void fibre_switch(fibre *from, fibre *to) {
  starting = to;
#ifdef FIBRE_ASAN
  __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->bytes);
#endif
#ifdef FIBRE_UCONTEXT
  swapcontext(&from->context, &to->context);
#else
  cuda_on_cpu_swap(&from->stack_pointer, to->stack_pointer);
#endif
  arrived(from);
}
