/* Signals that end a program, as a flag. */
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static atomic_int pending; /* the handler may run on a loader's thread */

static void on_signal(int number) {
  if (atomic_exchange(&pending, number) && number == SIGINT) _exit(130);
}

/* Signals by which a terminal, a shell or a scheduler ends a program: SLURM warns by SIGUSR1 or SIGUSR2, a limit of
 * processor time by SIGXCPU. */
static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU};

pg_status pg_signals_install(void) {
  struct sigaction action, before;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of the write, with a message */
  signal(SIGPIPE, SIG_IGN); /* nobody reads the output any more: training continues */
  for (size_t k = 0; k < sizeof ending / sizeof *ending; k++) {
    if (sigaction(ending[k], NULL, &before))
      return pg_error(PG_ERROR_IO, "signals: the handler of signal %d could not be read", ending[k]);
    if (before.sa_handler == SIG_IGN) continue; /* as nohup sets it for SIGHUP */
    if (sigaction(ending[k], &action, NULL))
      return pg_error(PG_ERROR_IO, "signals: the handler of signal %d could not be installed", ending[k]);
  }
  return PG_OK;
}

int pg_signals_pending(void) { return atomic_load(&pending); }
void pg_signals_clear(void) { atomic_store(&pending, 0); }
