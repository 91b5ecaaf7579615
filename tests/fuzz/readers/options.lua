--- A command line: a line of the input is an argument, the first the command's name. No recipe's file is run.
local cli = require "perigee.cli"
local options = require "perigee.base.options"

local verbs = {}
for _, name in ipairs(cli.verbs()) do
  local verb = require("perigee.cli." .. name)
  if not verb.recipe then verbs[#verbs + 1] = { name = name, verb = verb } end
end

local own = options.declare { { "width", 64, "a number" }, { "resume", false, "a switch" }, { "name", "x", "a text" },
  { name = "count", type = "integer", min = 1, max = 9, help = "" }, { name = "set", type = "pairs", help = "" },
  { name = "with", type = "list", help = "" }, { name = "kind", choices = { "a", "b" }, help = "" } }

return { read = function(text)
  local arguments = {}
  for word in (text .. "\n"):gmatch "([^\n%z]*)\n" do arguments[#arguments + 1] = word end
  options.values(own, (options.parse(own, arguments, { unknown = #text % 2 == 0 })))
  local entry = verbs[#text % #verbs + 1]
  cli.read(entry.name, entry.verb, arguments)
end }
