/* Line editing by libedit, and Ctrl-C, as the Lua module `perigee_terminal`. It lies outside libperigee.so because it
 * needs the Lua state: completion asks a Lua function while a line is being read, and Ctrl-C sets a hook. */
#include <editline/readline.h>
#include <lauxlib.h>
#include <lua.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static lua_State *state;                    /* the one that reads lines */
static int completer = LUA_NOREF;           /* its completion function, in the registry */
static volatile sig_atomic_t evaluating;    /* Ctrl-C: to end an evaluation (1) or to abandon a line (0) */
static volatile sig_atomic_t interruptions; /* since the line or the evaluation began */
static volatile sig_atomic_t reading; /* in libedit, which continues reading after a signal: Ctrl-C jumps out of it */
static sigjmp_buf abandoned;

/* ---- Ctrl-C --------------------------------------------------------------------------------------------------- */

static void end_evaluation(lua_State *L, lua_Debug *at) {
  (void)at;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted");
}

static void on_interrupt(int number) {
  (void)number;
  interruptions++;
  if (reading) siglongjmp(abandoned, 1);
  if (evaluating) lua_sethook(state, end_evaluation, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* evaluate(f, ...): calls f as pcall does; Ctrl-C makes it fail with the message "interrupted". */
static int evaluate(lua_State *L) {
  interruptions = 0;
  evaluating = 1;
  int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  evaluating = 0;
  lua_sethook(L, NULL, 0, 0);
  lua_pushboolean(L, status == 0);
  lua_insert(L, 1);
  return lua_gettop(L);
}

/* ---- lines ---------------------------------------------------------------------------------------------------- */

static int word_begins; /* where the word starts in the line */

/* The Lua function's proposals for the word that ends at the cursor, one at each call. */
static char *next_proposal(const char *word, int again) {
  static int position;
  if (!again) {
    position = 0;
    lua_settop(state, 0);
    lua_rawgeti(state, LUA_REGISTRYINDEX, completer);
    lua_pushstring(state, word);
    lua_pushlstring(state, rl_line_buffer, (size_t)word_begins);
    if (lua_pcall(state, 2, 1, 0) || !lua_istable(state, -1)) lua_settop(state, 0);
  }
  if (lua_gettop(state) < 1) return NULL;
  lua_rawgeti(state, 1, ++position);
  const char *text = lua_tostring(state, -1);
  char *copy = text ? strdup(text) : NULL;
  lua_settop(state, copy ? 1 : 0);
  return copy;
}

static char **propose(const char *word, int start, int end) {
  (void)end;
  word_begins = start;
  rl_attempted_completion_over = 1; /* no names of files */
  reading = 0;                      /* Lua runs now */
  char **matches = completer == LUA_NOREF ? NULL : rl_completion_matches(word, next_proposal);
  reading = 1;
  return matches;
}

/* read_line(prompt) -> line; nil, "end" or nil, "interrupted" */
static int read_line(lua_State *L) {
  char *volatile prompt = strdup(luaL_checkstring(L, 1));
  lua_State *volatile own = lua_newthread(L); /* completion works on a stack of its own */
  volatile int anchor = luaL_ref(L, LUA_REGISTRYINDEX);
  state = own;
  interruptions = 0;
  char *volatile line = NULL;
  if (prompt && !sigsetjmp(abandoned, 1)) {
    reading = 1;
    line = readline(prompt);
  } else if (prompt) rl_deprep_terminal();
  reading = 0;
  state = L;
  luaL_unref(L, LUA_REGISTRYINDEX, anchor);
  free(prompt);
  if (line && !interruptions) {
    lua_pushstring(L, line);
    free(line);
    return 1;
  }
  free(line);
  lua_pushnil(L);
  lua_pushstring(L, interruptions ? "interrupted" : "end");
  return 2;
}

/* complete_with(function(word, before) return list end) */
static int complete_with(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  luaL_unref(L, LUA_REGISTRYINDEX, completer);
  completer = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

/* ---- history -------------------------------------------------------------------------------------------------- */

static int remember(lua_State *L) {
  add_history(luaL_checkstring(L, 1));
  return 0;
}

static int load_history(lua_State *L) {
  lua_pushboolean(L, read_history(luaL_checkstring(L, 1)) == 0);
  return 1;
}

static int save_history(lua_State *L) {
  lua_pushboolean(L, write_history(luaL_checkstring(L, 1)) == 0);
  return 1;
}

/* ---- the module ----------------------------------------------------------------------------------------------- */

__attribute__((visibility("default"))) int luaopen_perigee_terminal(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"evaluate", evaluate}, {"read_line", read_line},       {"complete_with", complete_with},
      {"remember", remember}, {"load_history", load_history}, {"save_history", save_history},
      {NULL, NULL},
  };
  state = L;
  rl_readline_name = "perigee";
  rl_attempted_completion_function = propose;
  rl_completion_append_character = 0;
  rl_basic_word_break_characters = " \t\n\"\\'><=;+-*/%^~#{}()[],";
  rl_completer_word_break_characters = (char *)rl_basic_word_break_characters;
  rl_catch_signals = 0;
  using_history();
  stifle_history(2000);
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_interrupt; /* without SA_RESTART: a line being read ends */
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  return 1;
}
