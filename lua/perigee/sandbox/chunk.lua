--- Text that a user typed, as a function: expressions need no `return` and no `=`; unfinished text is told from wrong
--- text; and a function's own source text can be found again.
local failure = require "perigee.base.failure"

local M = {}

local KEPT = 256 -- chunks whose text is remembered

local count, texts, names = 0, {}, {}

local function remember(name, text)
  names[count % KEPT] = names[count % KEPT] or false
  if names[count % KEPT] then texts[names[count % KEPT]] = nil end
  names[count % KEPT] = name
  texts[name] = text
end

local function without_first(_, ...) return ... end

--- Compiles text for an environment. Returns the function; or nil, a message, and whether more lines could make it
--- whole. The code is never compiled to machine code: its loops stay interruptible.
---@return function? chunk, string? message, boolean? unfinished
function M.compile(text, environment, kind)
  if text:byte(1) == 27 then return nil, "this is bytecode; only source text is evaluated", false end
  count = count + 1
  local name = ("=%s %d"):format(kind or "input", count)
  -- `nil` before the value: a call alone after `return` would be a tail call, and its line unknown in an error
  local source, is_value = "return nil, " .. text, true
  local chunk, message = loadstring(source, name)
  if not chunk then
    source, is_value = text, false
    chunk, message = loadstring(source, name)
  end
  if not chunk then return nil, message, message:match "near '<eof>'$" ~= nil end
  remember(name, source)
  jit.off(chunk, true)
  setfenv(chunk, environment)
  return is_value and function() return without_first(chunk()) end or chunk
end

-- ---- the source of a function -----------------------------------------------------------------------------------

local function lines_between(text, first, last)
  local kept, number = {}, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if number >= first and number <= last then kept[#kept + 1] = line end
  end
  return kept
end

--- Positions at which a word stands in a line.
local function places(line, word)
  local list, from = {}, 1
  while true do
    local start, stop = line:find("%f[%w_]" .. word .. "%f[^%w_]", from)
    if not start then return list end
    list[#list + 1] = { start, stop }
    from = stop + 1
  end
end

--- A piece of text as a function of its own, or nil.
local function alone(piece)
  local anonymous = piece:gsub("^function%s+[%w_%.]+%s*%(", "function(")
  local chunk = loadstring("return " .. anonymous, "=policy")
  if not chunk then return nil end
  jit.off(setfenv(chunk, {}), true)
  local fine, f = pcall(chunk)
  return fine and type(f) == "function" and f or nil, anonymous
end

--- The text of a function that was typed into a console: the piece between a `function` on its first line and an `end`
--- on its last that has the same bytecode. nil where the text is not known (any more).
function M.source_of(f)
  local info = debug.getinfo(f, "S")
  local text = texts[info.source]
  if not text then return nil end
  local lines, wanted = lines_between(text, info.linedefined, info.lastlinedefined), string.dump(f, true)
  local first, last = lines[1], lines[#lines]
  local whole = table.concat(lines, "\n")
  for _, start in ipairs(places(first, "function")) do
    for _, stop in ipairs(places(last, "end")) do
      local piece = whole:sub(start[1], #whole - #last + stop[2])
      local candidate, anonymous = alone(piece)
      if candidate and string.dump(candidate, true) == wanted then return anonymous end
    end
  end
end

-- ---- what a function reads from outside -------------------------------------------------------------------------

local util = require "jit.util"
local band, rshift = bit.band, bit.rshift
local GLOBAL_READ = band(util.funcbc(loadstring "return x", 1), 0xff)
local GLOBAL_WRITE = band(util.funcbc(loadstring "x = nil", 2), 0xff)

local function visit(prototype, found)
  for position = 1, util.funcinfo(prototype).bytecodes - 1 do
    local instruction = util.funcbc(prototype, position)
    local operation = band(instruction, 0xff)
    if operation == GLOBAL_READ or operation == GLOBAL_WRITE then
      found[util.funck(prototype, -rshift(instruction, 16) - 1)] = true
    end
  end
  for k = -1, -util.funcinfo(prototype).gcconsts, -1 do
    local constant = util.funck(prototype, k)
    if type(constant) == "proto" then visit(constant, found) end
  end
end

--- Names of the local variables from outside that a function captures, and of the globals it reads or writes; sorted.
---@return string[] captured, string[] globals
function M.outside(f)
  local captured, globals, found = {}, {}, {}
  for k = 1, debug.getinfo(f, "u").nups do captured[k] = (debug.getupvalue(f, k)) end
  visit(f, found)
  for name in pairs(found) do globals[#globals + 1] = name end
  table.sort(captured)
  table.sort(globals)
  return captured, globals
end

-- ---- errors -----------------------------------------------------------------------------------------------------

local LONGEST_MESSAGE = 2 ^ 16 -- bytes; the user may have made it

--- A message handler for xpcall: the message, and the user's own lines that led to it.
function M.handler(is_users)
  return function(message)
    local lines = {}
    if type(message) ~= "string" then message = ("an error value: %s"):format(type(message)) end
    if #message > LONGEST_MESSAGE then message = message:sub(1, LONGEST_MESSAGE) .. "... (shortened)" end
    message = failure.explained(message)
    for level = 2, 60 do
      local info = debug.getinfo(level, "Sln")
      if not info then break end
      if is_users(info.source) and info.currentline > 0 then
        lines[#lines + 1] = ("  %s:%d%s"):format(info.short_src, info.currentline,
          info.name and " in " .. info.name or "")
      end
    end
    if #lines > 12 then
      for k = #lines, 11, -1 do lines[k] = nil end
      lines[11] = "  ..."
    end
    if #lines > 1 or (lines[1] and not message:find(lines[1]:match "%S+:%d+" or "\0", 1, true)) then
      return message .. "\n" .. table.concat(lines, "\n")
    end
    return message
  end
end

return M
