/* The fuzz driver of readers in Lua: runs tests/fuzz/readers/NAME.lua (PERIGEE_FUZZ_READER) on each input in this
 * process, by tests/fuzz/check.lua, which raises where a reader does what it must not. Coverage is the pairs of lines
 * that follow one another, by a line hook, in counters that libFuzzer adds to its own; so everything is interpreted.
 * While a reader runs, opening a file for writing, renaming, removing or starting a program ends this one: a reader
 * writes nothing. */
#include <dlfcn.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

enum { COUNTERS = 1 << 16, LINES = 1 << 16 };

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

static lua_State *L;
static bool reading; /* a reader runs */

/* ---- what a reader must not do ---- */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void forbid(const char *what, const char *path) {
  if (!reading) return;
  reading = false;
  fprintf(stderr, "a reader called %s(%s)\n", what, path);
  abort();
}

#define OPEN_LIKE(name)                                                                       \
  int name(const char *path, int flags, ...) {                                                \
    va_list rest;                                                                             \
    va_start(rest, flags);                                                                    \
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;                                       \
    va_end(rest);                                                                             \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND)) forbid(#name, path);      \
    return NEXT(name)(path, flags, mode);                                                     \
  }
OPEN_LIKE(open)
OPEN_LIKE(open64)

static void check_mode(const char *name, const char *path, const char *mode) {
  if (strpbrk(mode, "wa+")) forbid(name, path);
}
FILE *fopen(const char *path, const char *mode) { return check_mode("fopen", path, mode), NEXT(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return check_mode("fopen", path, mode), NEXT(fopen64)(path, mode); }
int rename(const char *from, const char *to) { return forbid("rename", to), NEXT(rename)(from, to); }
int remove(const char *path) { return forbid("remove", path), NEXT(remove)(path); }
int unlink(const char *path) { return forbid("unlink", path), NEXT(unlink)(path); }
int mkdir(const char *path, mode_t mode) { return forbid("mkdir", path), NEXT(mkdir)(path, mode); }
int system(const char *command) { return forbid("system", command), NEXT(system)(command); }
FILE *popen(const char *command, const char *mode) { return forbid("popen", command), NEXT(popen)(command, mode); }

/* ---- coverage ---- */

static struct {
  const char *source;
  int line;
} seen[LINES]; /* lines that ran, hashed */
static uint32_t previous;

static uint32_t mix(uint64_t x) {
  x *= 0x9e3779b97f4a7c15u;
  return (uint32_t)(x >> 32);
}

static void on_line(lua_State *at, lua_Debug *where) {
  if (where->event == LUA_HOOKCOUNT) { /* the sandbox's own hook */
    lua_getfield(at, LUA_REGISTRYINDEX, "hook");
    lua_call(at, 0, 0);
    return;
  }
  lua_getinfo(at, "S", where);
  uint32_t here = mix((uint64_t)(uintptr_t)where->source * 8191 + (uint64_t)where->currentline);
  uint8_t *counter = &counters[(here ^ previous >> 1) % COUNTERS];
  if (*counter < 255) ++*counter;
  previous = here;
  uint32_t k = here % LINES;
  seen[k].source = where->source;
  seen[k].line = where->currentline;
}

/* debug.sethook(hook, "", instructions) of Lua code under the driver: lines are still seen. */
static int set_hook(lua_State *at) {
  lua_settop(at, 3);
  int count = lua_isfunction(at, 1) ? (int)luaL_checkinteger(at, 3) : 0;
  lua_pushvalue(at, 1);
  lua_setfield(at, LUA_REGISTRYINDEX, "hook");
  lua_sethook(at, on_line, LUA_MASKLINE | (count ? LUA_MASKCOUNT : 0), count);
  return 0;
}

/* Prints how many lines of the library ran: at least so many, as a few share a place. */
static void tell(void) {
  int lines = 0;
  for (int k = 0; k < LINES; k++) lines += seen[k].source && strstr(seen[k].source, "lua/perigee/") != NULL;
  fprintf(stderr, "lines: %d lines of lua/perigee\n", lines);
}

/* ---- running ---- */

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, lua_tostring(L, -1));
  abort();
}

static void start(void) {
  const char *home = getenv("PERIGEE_HOME"), *reader = getenv("PERIGEE_FUZZ_READER");
  if (!home || !reader) {
    fputs("PERIGEE_HOME and PERIGEE_FUZZ_READER must be set (tests/fuzz/run)\n", stderr);
    exit(1);
  }
  L = luaL_newstate();
  luaL_openlibs(L);
  lua_getglobal(L, "debug");
  lua_pushcfunction(L, set_hook);
  lua_setfield(L, -2, "sethook");
  lua_pop(L, 1);
  lua_pushfstring(L,
                  "jit.off() package.path = '%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;' .. package.path "
                  "return require('tests.fuzz.check').open('%s')",
                  home, home, home, reader);
  if (luaL_loadstring(L, lua_tostring(L, -1)) || lua_pcall(L, 0, 1, 0)) fail("start");
  lua_setfield(L, LUA_REGISTRYINDEX, "run");
  lua_settop(L, 0);
  atexit(tell);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!L) start();
  lua_getfield(L, LUA_REGISTRYINDEX, "run");
  lua_pushlstring(L, (const char *)data, size);
  previous = 0;
  lua_sethook(L, on_line, LUA_MASKLINE, 0);
  int failed = lua_pcall(L, 1, 0, 0);
  lua_sethook(L, NULL, 0, 0);
  if (failed) fail("reader");
  return 0;
}

/* check.lua calls it by ffi around a reader. */
__attribute__((visibility("default"))) void fuzz_reading(int begins) { reading = begins; }
