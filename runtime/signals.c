/* SIGINT and SIGTERM as a flag. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static volatile sig_atomic_t pending;

static void on_signal(int number) {
  if (pending && number == SIGINT) _exit(130);
  pending = number;
}

pg_status pg_signals_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is an error of the write, with a message */
  if (sigaction(SIGINT, &action, NULL) || sigaction(SIGTERM, &action, NULL))
    return pg_error(PG_ERROR_IO, "signals: the handlers could not be installed");
  return PG_OK;
}

int pg_signals_pending(void) { return pending; }
void pg_signals_clear(void) { pending = 0; }
