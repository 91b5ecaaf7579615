--- perigee run: a Lua script with Perigee at hand.
local function run(options)
  local path = options[1]
  if not path then error("perigee run needs a script: perigee run SCRIPT.lua [arguments]", 0) end
  local script, message = loadfile(path)
  if not script then error(message, 0) end
  arg = { [0] = path, unpack(options, 2) } -- luacheck: globals arg
  pg = require "perigee" -- luacheck: globals pg
  local language = require("perigee.base.tables").copy(require "perigee.core.language")
  setfenv(script, setmetatable(language, { __index = _G, __newindex = _G }))
  local status = script(unpack(options, 2))
  return type(status) == "number" and status or 0
end

return {
  summary = "run a Lua script; `pg` is Perigee, `arg` its arguments",
  usage = "SCRIPT.lua [arguments]",
  description = "Runs a Lua script in which `pg` is Perigee and `arg` holds the arguments that follow.\n"
    .. "A number that the script returns is the exit status.",
  stop = 1,
  run = run,
}
