--- The consoles of a running trainer, served between its steps. Frames are JSON: { id, eval, limit }
--- or { id, complete } there, { id, output, value | error | unfinished } or { id, proposals } back, and a first
--- { hello }.
local ffi = require "ffi"
local budget = require "perigee.console.budget"
local chunk = require "perigee.sandbox.chunk"
local complete = require "perigee.console.complete"
local control = require "perigee.console.control"
local core = require "perigee.core.ffi"
local failure = require "perigee.base.failure"
local json = require "perigee.io.json"
local limit = require "perigee.sandbox.limit"
local printable = require "perigee.base.printable"
local render = require "perigee.console.render"
local sandbox = require "perigee.console.sandbox"
local tensor = require "perigee.core.tensor"

local C = core.C
local M = {}

M.SOCKET = "console.sock"

local SECONDS_OF_COMPLETION = 0.2
local SECONDS, MOST_SECONDS = 1, 600 -- of an evaluation: unless told otherwise, and at most
local BETWEEN_STEPS = 0.05           -- seconds after which no further evaluation begins between two steps
local MOST_OUTPUT = 200000           -- characters of one answer
local MOST_LOGGED, LONGEST = 16, 65536 -- changes of one line, and its bytes, as each is in the log
local LONGEST_COMPLETED = 4096       -- bytes of a line that is completed
local LOG, LOG_RATE = 2 ^ 20, 2 ^ 14 -- bytes of the log that a client's changes may write at once, and a second
local FILES, FILES_RATE = 2 ^ 28, 2 ^ 22 -- and of the tensors that it sets

---@class perigee.Console
local Console = {}
Console.__index = Console

--- The console of a run: its socket. `save()` writes a checkpoint.
---@return perigee.Console
function M.open(run, save)
  local self = setmetatable({ run = run, save = save, sessions = {}, text = "" }, Console)
  local path, pointer = run.folder .. "/" .. M.SOCKET, ffi.new "pg_console *[1]"
  local status = C.pg_console_listen(pointer, path)
  if status == 0 then self.handle = ffi.gc(pointer[0], C.pg_console_free)
  else run.progress:line("no console: %s", ffi.string(C.pg_last_error())) end
  return self
end

-- ---- evaluation -------------------------------------------------------------------------------------------------

local function shorten(text)
  return #text > MOST_OUTPUT and text:sub(1, MOST_OUTPUT) .. "\n... (shortened)" or text
end

local function new_session(self)
  local session = { output = {}, length = 0, client = limit.client(), log = budget.new(LOG, LOG_RATE),
    files = budget.new(FILES, FILES_RATE) }
  local function out(text)
    if session.length < MOST_OUTPUT then session.output[#session.output + 1] = text:sub(1, MOST_OUTPUT) end
    session.length = session.length + #text
  end
  --- For the log: asked for before a change is made, which writes a file of so many bytes.
  local function text(bytes)
    self.logged = self.logged + 1
    if self.logged > MOST_LOGGED then core.fail("one line may change a run %d times", MOST_LOGGED) end
    session.log:expect "to the log"
    if bytes then
      session.files:expect "to files"
      session.files:spend(bytes)
    end
    return self.text
  end
  --- Puts an environment in place of the one there is, if any.
  function session.begin()
    session.environment, session.base = nil, nil
    session.environment, session.base = tensor.outlive(sandbox.environment, {
      run = control.run(self.run, text, self.save, out), student = control.student(self.run),
    }, out)
  end
  session.begin()
  return session
end

--- Empties an environment that is over. Its proxies lead to the session, which holds them, a cycle through the values
--- of weak tables, which the collector would keep for ever.
local function empty(session)
  for _, held in ipairs { session.environment, session.base } do
    for key in next, held do rawset(held, key, nil) end
  end
end

--- Empties a session that is over.
local function forget(session)
  empty(session)
  limit.release(session.client)
  for key in next, session do session[key] = nil end
end

--- Drops what a session's lines have kept, if it is too much. The sentence that says so, or nil.
local function bound(session)
  local bytes = limit.keeps_too_much(session.client)
  if not bytes then return nil end
  empty(session)
  session.begin()
  return ("this console's variables took %.0f MiB, more than it may keep between lines: they are gone"):format(
    bytes / 2 ^ 20)
end

--- Evaluates a text in a session; returns the answer.
function Console:evaluate(session, text, seconds)
  if #text > LONGEST then return { error = ("a line of %d bytes; expected at most %d"):format(#text, LONGEST) } end
  if not printable.is_utf8(text) then return { error = "the line is not UTF-8" } end
  local f, message, unfinished = chunk.compile(text, session.environment)
  if not f then return unfinished and { unfinished = true, error = message } or { error = message } end
  session.output, session.length, self.text, self.logged = {}, 0, text, 0
  local logged = self.run:log_bytes()
  local fine, result = limit.run(seconds, function()
    return tensor.outlive(function()
      local function collect(...) return render.values({ ... }, select("#", ...)) end
      return collect(f())
    end)
  end, chunk.handler(limit.is_users), session.client)
  session.log:spend(self.run:log_bytes() - logged)
  local answer = { output = shorten(table.concat(session.output)) }
  answer[fine and "value" or "error"] = shorten(tostring(result))
  session.output = {}
  local dropped = bound(session)
  if dropped then answer.value, answer.error = nil, answer.error and answer.error .. "\n" .. dropped or dropped end
  return answer
end

local function proposals(session, word, before)
  return complete.proposals(word, { session.environment, session.base }, {
    names = sandbox.names,
    before = before, child = function(value, key)
      if type(value) ~= "userdata" then return nil end
      local fine, result = pcall(function() return value[key] end)
      return fine and result or nil
    end,
  })
end

function Console:answer(session, request, seconds)
  if type(request) ~= "table" then return { error = "a request is an object" } end
  if type(request.eval) == "string" then return self:evaluate(session, request.eval, seconds) end
  if type(request.complete) == "string" then -- a user's metatables may have their say
    local before = type(request.before) == "string" and request.before or ""
    if #request.complete + #before > LONGEST_COMPLETED then return { proposals = json.array() } end
    local fine, list = limit.run(SECONDS_OF_COMPLETION, function()
      return proposals(session, request.complete, before)
    end, tostring, session.client)
    bound(session)
    return { proposals = json.array(fine and list or {}) }
  end
  return { error = "a request has a text under 'eval' or under 'complete'" }
end

-- ---- between steps ----------------------------------------------------------------------------------------------

local client, frame, bytes = ffi.new "int64_t[1]", ffi.new "const char *[1]", ffi.new "int64_t[1]"

function Console:send(to, message)
  local fine, text = pcall(json.encode, message)
  if not fine then
    text = json.encode { id = message.id, error = "the answer cannot be written: " .. tostring(text) }
  end
  C.pg_console_send(self.handle, to, text, #text)
end

function Console:hello()
  return { name = control.name(self.run), step = self.run.step, stage = self.run.stage.name,
    version = ffi.string(C.pg_version()), limit = SECONDS }
end

local function seconds_of(request, spent)
  local asked = type(request) == "table" and type(request.limit) == "number" and request.limit or SECONDS
  asked = asked > 0 and asked or SECONDS
  return math.max(math.min(asked, MOST_SECONDS) - spent, 0.01)
end

--- Serves one thing that has come; false when there is nothing.
function Console:serve(started)
  local event = C.pg_console_next(self.handle, client, frame, bytes)
  if event == C.PG_CONSOLE_NOTHING then return false end
  local from = tonumber(client[0])
  if event == C.PG_CONSOLE_OPENED then
    self.sessions[from] = new_session(self)
    self:send(from, { hello = self:hello() })
  elseif event == C.PG_CONSOLE_CLOSED then
    if self.sessions[from] then forget(self.sessions[from]) end
    self.sessions[from] = nil
  else
    local fine, request = pcall(json.decode, ffi.string(frame[0], bytes[0]), "request")
    local answer
    if fine then answer = self:answer(self.sessions[from], request, seconds_of(request, C.pg_clock_seconds() - started))
    else answer = { error = tostring(request) } end
    local id = fine and type(request) == "table" and request.id
    answer.id = (type(id) == "string" or (type(id) == "number" and math.abs(id) < math.huge)) and id or nil
    self:send(from, answer)
  end
  return true
end

function Console:poll(milliseconds)
  if C.pg_console_poll(self.handle, milliseconds) == 0 then return end
  local started = C.pg_clock_seconds()
  repeat
    local fine, more = xpcall(self.serve, failure.handler, self, started)
    if not fine then -- nothing that a client sends ends the run
      self.run.progress:line("console: a request could not be served: %s", tostring(more))
      return
    end
  until not more or C.pg_clock_seconds() - started >= BETWEEN_STEPS
end

--- Called between two steps.
function Console:between_steps()
  local run = self.run
  if not self.handle then return end
  self:poll(0)
  while run.paused and C.pg_signals_pending() == 0 and not run.finish_asked do self:poll(100) end
end

function Console:close()
  if self.handle then C.pg_console_free(ffi.gc(self.handle, nil)) end
  self.handle = nil
end

return M
