/* Choices among equals, by key: made once, listed so that a run can save them. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct choice {
  char *key, *value;
} choice;

static choice *choices;
static int n_choices, room;

int pg_choice_count(void) { return n_choices; }
const char *pg_choice_key(int k) { return k >= 0 && k < n_choices ? choices[k].key : ""; }
const char *pg_choice_value(int k) { return k >= 0 && k < n_choices ? choices[k].value : ""; }

static choice *find(const char *key) {
  for (int k = 0; k < n_choices; k++)
    if (!strcmp(choices[k].key, key)) return &choices[k];
  return NULL;
}

const char *pg_choice_find(const char *key) {
  const choice *c = find(key);
  return c ? c->value : NULL;
}

pg_status pg_choice_keep(const char *key, const char *value) {
  const char *const white = " \t\r\n";
  if (!*key || !*value || strpbrk(key, white) || strpbrk(value, white))
    return pg_error(PG_ERROR_ARGUMENT, "choice: '%s' and '%s' must be texts without white space", key, value);
  char *copy = strdup(value);
  choice *c = find(key);
  if (!c && n_choices == room) {
    choice *more = realloc(choices, (size_t)(room + 64) * sizeof *more);
    if (more) choices = more, room += 64;
  }
  char *name = c || n_choices == room ? NULL : strdup(key);
  if (!copy || (!c && !name)) {
    free(copy);
    return pg_error(PG_ERROR_MEMORY, "choice: out of memory");
  }
  if (c) free(c->value);
  else {
    c = &choices[n_choices++];
    c->key = name;
  }
  c->value = copy;
  return PG_OK;
}
