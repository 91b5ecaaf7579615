/* The program: a LuaJIT state that finds Perigee's Lua files and hands the command line to perigee.cli. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder with lua/perigee: PERIGEE_HOME, or the nearest folder above the program that has it. */
static int find_home(char *home, size_t room) {
  const char *given = getenv("PERIGEE_HOME");
  char path[4096];
  if (given) return snprintf(home, room, "%s", given) < (int)room;
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  for (char *slash = strrchr(path, '/'); slash; slash = strrchr(path, '/')) {
    *slash = 0;
    if (snprintf(home, room, "%s/lua/perigee/init.lua", path) < (int)room && access(home, R_OK) == 0)
      return snprintf(home, room, "%s", path) < (int)room;
  }
  return 0;
}

static int traceback(lua_State *L) {
  if (lua_type(L, 1) != LUA_TSTRING) return 1;
  if (strstr(lua_tostring(L, 1), "not enough memory")) { /* where it was missing is no matter */
    lua_pushliteral(L, "not enough memory");
    return 1;
  }
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

/* Data and teachers' caches are read from mapped files. */
static void on_bus_error(int number) {
  static const char text[] = "perigee: a file was cut short while it was read, or its disk failed (SIGBUS); a run's "
                             "checkpoints are whole, and --resume continues from the last\n";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  signal(number, SIG_DFL);
  raise(number);
}

int main(int argc, char **argv) {
  char home[4096];
  if (!find_home(home, sizeof home)) {
    fprintf(stderr, "perigee: lua/perigee/init.lua is in no folder above the program; set PERIGEE_HOME\n");
    return 1;
  }
  signal(SIGBUS, on_bus_error);
  lua_State *L = luaL_newstate();
  if (!L) {
    fprintf(stderr, "perigee: out of memory\n");
    return 1;
  }
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s", home, home, lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_pop(L, 2);
  lua_createtable(L, argc, 1);
  for (int k = 0; k < argc; k++) {
    lua_pushstring(L, argv[k]);
    lua_rawseti(L, -2, k);
  }
  lua_setglobal(L, "arg");

  lua_pushcfunction(L, traceback);
  lua_getglobal(L, "require");
  lua_pushstring(L, "perigee.cli");
  int status = lua_pcall(L, 1, 1, 1);
  if (!status) status = lua_pcall(L, 0, 1, 1); /* the module is the main function; it returns the exit status */
  int code = 1;
  if (status) fprintf(stderr, "perigee: %s\n", lua_tostring(L, -1));
  else code = (int)lua_tointeger(L, -1);
  lua_close(L);
  return code;
}
