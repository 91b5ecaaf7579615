/* Errors: a status for the caller, a sentence for the user, kept for the calling thread. */
#include <stdarg.h>
#include <stdio.h>

#include "kernel.h"

static _Thread_local char message[1024];

pg_status pg_error(pg_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return status;
}

const char *pg_last_error(void) { return message; }

const char *pg_shape_text(const pg_view *v) {
  enum { TEXTS = 8, LENGTH = 160 };
  static _Thread_local char texts[TEXTS][LENGTH];
  static _Thread_local int next;
  char *text = texts[next = (next + 1) % TEXTS];
  int used = snprintf(text, LENGTH, "[");
  for (int d = 0; d < v->ndim && used < LENGTH - 24; d++)
    used += snprintf(text + used, (size_t)(LENGTH - used), d ? ",%lld" : "%lld", (long long)v->shape[d]);
  snprintf(text + used, (size_t)(LENGTH - used), "]");
  return text;
}
