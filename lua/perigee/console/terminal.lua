--- The part of a console that a person sits in front of: lines with editing, history and completion, and the loop that
--- reads, evaluates and prints. Where the program was built without libedit, or nobody is there, it reads plain lines.
local environment = require "perigee.base.environment"
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local lfs = require "lfs"

ffi.cdef "int isatty(int);"

local M = {}

--- The folder of the history: XDG_STATE_HOME/perigee, or ~/.local/state/perigee.
function M.state_folder()
  return environment.folder("XDG_STATE_HOME", ".local/state") .. "/perigee"
end

local function load_module()
  local path = (os.getenv "PERIGEE_BUILD" or core.home .. "/build") .. "/runtime/perigee_terminal.so"
  local open = lfs.attributes(path, "mode") and package.loadlib(path, "luaopen_perigee_terminal")
  return open and open() or nil
end

--- Lines from a person: read(prompt) -> line; nil, "end" | "interrupted".
local function editor(module, complete)
  local folder = M.state_folder()
  local path = folder .. "/history"
  if complete then module.complete_with(complete) end
  module.load_history(path)
  return {
    read = module.read_line, evaluate = module.evaluate,
    remember = function(line)
      if not line:match "%S" then return end
      module.remember(line)
      if pcall(require("perigee.io.files").make_folder, folder) then module.save_history(path) end
    end,
  }
end

local function plain(person)
  return {
    read = function(prompt)
      if person then io.write(prompt) io.flush() end
      local line = io.read "*l"
      if line then return line end
      return nil, "end"
    end,
    evaluate = pcall, remember = function() end,
  }
end

--- Reads, evaluates and prints until the input ends. `options`:
---   prompt          string
---   complete(word, before)  proposals; what stands before the word on its line
---   evaluate(text)  prints; returns true where more lines are needed; raises nothing
---   command(line)   for lines that begin with ":"; true to leave
---@param options { prompt: string, complete?: function, evaluate: function, command: function }
function M.loop(options)
  local person = ffi.C.isatty(0) == 1
  local module = person and load_module()
  local lines = module and editor(module, options.complete) or plain(person)
  local text
  while true do
    local line, reason = lines.read(text and (" "):rep(#options.prompt - 2) .. "> " or options.prompt)
    if not line and reason == "interrupted" then
      if person then io.write "\n" end
      text = nil
    elseif not line then
      if person then io.write "\n" end
      if text then options.evaluate(text, lines.evaluate, true) end
      return
    else
      lines.remember(line)
      if not text and line:match "^%s*:" then
        if options.command((line:gsub("^%s*:", "")), lines.evaluate) then return end
      elseif text or line:match "%S" then
        text = text and text .. "\n" .. line or line
        if not options.evaluate(text, lines.evaluate, text:match "\n%s*$" ~= nil and line == "") then text = nil end
      end
    end
    io.flush()
  end
end

return M
