/* How long threads spin, while they wait for each other at the end of a loop, before they sleep. Spinning long is best
 * where each thread has a processor for itself. Where others want the processors too, each turn is one that the awaited
 * thread does not get. libgomp reads its number of turns once (GOMP_SPINCOUNT), but waits briefly while there are more
 * OpenMP threads than processors. So beside others a team of threads stands by that does nothing but count.
 *
 * Others are noticed by how often this process is put off a processor that it still wants. While threads sleep soon that
 * says little, so after a while long spinning is tried again; the while grows where it was of no use. */
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "internal.h"

#define WINDOW 0.5   /* seconds between two looks */
#define FORCED 120.0 /* times a second off a processor, from which on others want it: idle 66, beside one 190 */
#define BEFORE 2     /* looks in a row that must say so */
#define FIRST 5.0    /* seconds of sleeping soon, at first and at most */
#define MOST 60.0
#define SOON 30.0    /* seconds of long spinning after which the next while is the first again */

static struct {
  bool decided, enabled, shared;
  double next, since, until, hold, left;
  long forced;
  int seen, count;
  pthread_t thread;
  sem_t leave;
} w = {.left = -INFINITY};

static void *stand_by(void *unused) {
  (void)unused;
#pragma omp parallel num_threads(w.count)
  while (sem_wait(&w.leave)) continue;
  return NULL;
}

static long times_forced(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) ? 0 : usage.ru_nivcsw;
}

static void share(double now) {
  sigset_t all, before;
  w.count = omp_get_num_procs() > 2 ? omp_get_num_procs() : 2;
  if (sem_init(&w.leave, 0, 0)) return;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  w.shared = !pthread_create(&w.thread, NULL, stand_by, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!w.shared) {
    sem_destroy(&w.leave);
    return;
  }
  w.hold = now - w.left < SOON ? fmin(2 * w.hold, MOST) : FIRST;
  w.until = now + w.hold;
}

static void keep(double now) {
  for (int k = 0; k < w.count; k++) sem_post(&w.leave);
  pthread_join(w.thread, NULL);
  sem_destroy(&w.leave);
  w.shared = false;
  w.left = now;
}

static bool enabled(void) {
  if (!w.decided) w.enabled = !getenv("GOMP_SPINCOUNT") && !getenv("OMP_WAIT_POLICY");
  w.decided = true;
  return w.enabled;
}

void pg_waiting_share(int others) {
  if (!enabled() || !others == !w.shared) return;
  if (others) share(pg_clock_seconds());
  else keep(pg_clock_seconds());
}

int pg_waiting_is_shared(void) { return w.shared; }

void pg_waiting_watch(void) {
  double now = pg_clock_seconds();
  if (now < w.next || !enabled()) return;
  long forced = times_forced();
  bool wanted = w.next > 0 && omp_get_max_threads() > 1 && (double)(forced - w.forced) > FORCED * (now - w.since);
  w.seen = wanted ? w.seen + 1 : 0;
  w.forced = forced, w.since = now, w.next = now + WINDOW;
  if (!w.shared && w.seen >= BEFORE) share(now);
  else if (w.shared && now >= w.until) keep(now);
}
