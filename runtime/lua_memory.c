/* LuaJIT's memory: a bound on what may be added, and how much of it each owner's blocks take. The blocks that an owner
 * made are in a table of addresses, until Lua gives them back: whenever that is, the owner is known. */
#include <stdlib.h>

#include "internal.h"

enum { OWNER_SHIFT = 48, FIRST_ROOM = 1 << 10 }; /* a user's addresses have 47 bits */
static const uint64_t ADDRESS = ((uint64_t)1 << OWNER_SHIFT) - 1;

static pg_lua_memory memory;
static struct {
  uint64_t *entries; /* address and owner; 0: free. Open addressing: an entry stands at its place or after it */
  size_t room, used; /* room is a power of two, or 0 */
} owned;

pg_lua_memory *pg_lua_memory_get(void) { return &memory; }

static size_t next(size_t k) { return (k + 1) & (owned.room - 1); }

static size_t place(uint64_t address) {
  uint64_t mixed = address * 0x9E3779B97F4A7C15u;
  return (size_t)(mixed >> 20) & (owned.room - 1);
}

static void remember(uint64_t entry) {
  size_t k = place(entry & ADDRESS);
  while (owned.entries[k]) k = next(k);
  owned.entries[k] = entry;
  owned.used++;
}

/* Room for one more. False: out of memory. */
static bool reserve(void) {
  if (2 * (owned.used + 1) <= owned.room) return true;
  size_t before = owned.room, room = before ? 2 * before : FIRST_ROOM;
  uint64_t *old = owned.entries, *entries = calloc(room, sizeof *entries);
  if (!entries) return false;
  owned.entries = entries;
  owned.room = room;
  owned.used = 0;
  for (size_t k = 0; k < before; k++)
    if (old[k]) remember(old[k]);
  free(old);
  return true;
}

/* Takes a block out of the table; its owner, 0 if it is not there. */
static int forget(const void *block) {
  if (!owned.used) return 0;
  size_t k = place((uint64_t)block);
  while (owned.entries[k] && (owned.entries[k] & ADDRESS) != (uint64_t)block) k = next(k);
  if (!owned.entries[k]) return 0;
  int owner = (int)(owned.entries[k] >> OWNER_SHIFT);
  owned.entries[k] = 0;
  owned.used--;
  for (size_t j = next(k); owned.entries[j]; j = next(j)) { /* those after it move up where their place allows it */
    size_t wanted = place(owned.entries[j] & ADDRESS);
    if (((j - wanted) & (owned.room - 1)) < ((j - k) & (owned.room - 1))) continue;
    owned.entries[k] = owned.entries[j];
    owned.entries[j] = 0;
    k = j;
  }
  return owner;
}

void *pg_lua_allocate(void *data, void *block, size_t before, size_t after) {
  pg_lua_memory *m = data;
  double more = (double)after - (double)before;
  if (more > 0 && more > m->left) return NULL;
  int owner = block ? forget(block) : m->owner;
  if (owner && after && !reserve()) {
    if (block) remember((uint64_t)block | (uint64_t)owner << OWNER_SHIFT); /* the room that it had */
    return NULL;
  }
  void *given = m->allocate(m->data, block, before, after);
  bool refused = after && !given;
  if (owner && after && (given || block))
    remember((uint64_t)(given ? given : block) | (uint64_t)owner << OWNER_SHIFT);
  if (refused) return NULL;
  m->left -= more;
  if (owner) m->held[owner] += more;
  return given;
}
