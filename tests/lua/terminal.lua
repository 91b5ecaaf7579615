--- A program behind a pseudo-terminal:
---   local screen = terminal.start({ "perigee", "repl" }, { HOME = folder })
---   screen:expect "perigee> "; screen:type "1 + 1\n"; screen:expect "2"; screen:close()
local ffi = require "ffi"

ffi.cdef [[
int forkpty(int *master, char *name, const void *termios, const void *size);
int execvp(const char *file, char *const *arguments);
int setenv(const char *name, const char *value, int overwrite);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
void _exit(int status);
int close(int fd);
long read(int fd, void *to, unsigned long bytes);
long write(int fd, const void *from, unsigned long bytes);
struct perigee_pollfd { int fd; short events, returned; };
int poll(struct perigee_pollfd *list, unsigned long n, int milliseconds);
]]
local C = ffi.C
local util = pcall(function() return C.forkpty end) and C or ffi.load "libutil.so.1" -- part of glibc since 2.34

local Screen = {}
Screen.__index = Screen

local M = {}

function M.start(arguments, environment)
  local list = ffi.new("const char *[?]", #arguments + 1)
  for k, text in ipairs(arguments) do list[k - 1] = text end
  local master = ffi.new "int[1]"
  local pid = util.forkpty(master, nil, nil, nil)
  if pid == 0 then
    for name, value in pairs(environment or {}) do C.setenv(name, value, 1) end
    C.execvp(arguments[1], ffi.cast("char *const *", list))
    C._exit(127)
  end
  return setmetatable({ pid = pid, fd = master[0], text = "", seen = 1 }, Screen)
end

local buffer = ffi.new "char[4096]"

--- Waits until a text appears after what was expected before; returns what stood between. An error after `seconds`.
function Screen:expect(text, seconds)
  local stop = os.time() + (seconds or 60)
  while true do
    local start, last = self.text:find(text, self.seen, true)
    if start then
      local between = self.text:sub(self.seen, start - 1)
      self.seen = last + 1
      return between
    end
    local ready = ffi.new("struct perigee_pollfd[1]", { { self.fd, 1, 0 } })
    if C.poll(ready, 1, 200) > 0 then
      local n = C.read(self.fd, buffer, 4096)
      if n <= 0 then error(("the program ended; expected %q after %q"):format(text, self.text:sub(self.seen)), 2) end
      self.text = self.text .. ffi.string(buffer, n)
    elseif os.time() > stop then
      error(("expected %q, the screen shows %q"):format(text, self.text:sub(self.seen)), 2)
    end
  end
end

function Screen:type(text) C.write(self.fd, text, #text) end

--- Ctrl-D, once the program has had time to ask for single keys after its prompt: before, the terminal itself takes it.
function Screen:leave()
  C.poll(nil, 0, 500)
  self:type "\4"
end

--- Waits for the program to end by itself, up to ten seconds; its exit status, or nil where a signal ended it.
function Screen:close()
  local stop = os.time() + 10
  while os.time() < stop do
    local ready = ffi.new("struct perigee_pollfd[1]", { { self.fd, 1, 0 } })
    if C.poll(ready, 1, 200) > 0 and C.read(self.fd, buffer, 4096) <= 0 then break end
  end
  C.close(self.fd)
  local status = ffi.new "int[1]"
  C.waitpid(self.pid, status, 0)
  return bit.band(status[0], 0x7f) == 0 and bit.rshift(status[0], 8) or nil
end

return M
