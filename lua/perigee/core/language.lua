--- Functions of Lua's that would take a tensor and silently find nothing in it. Recipes, scripts and the REPL get these
--- instead; a module that such a file requires has Lua's own.
local core = require "perigee.core.ffi"
local op = require "perigee.core.op"

local function without_tensors(name, original, instead)
  return function(x, ...)
    if op.is_operand(x) then core.fail("%s of a tensor %s: write %s", name, core.shape_text(x.shape), instead) end
    return original(x, ...)
  end
end

return {
  ipairs = without_tensors("ipairs", ipairs, "for k, entry in ipairs(x:unbind()), or ipairs(x:totable()) for numbers"),
  pairs = without_tensors("pairs", pairs, "for k, entry in ipairs(x:unbind()), or ipairs(x:totable()) for numbers"),
  unpack = without_tensors("unpack", unpack, "unpack(x:unbind()), or unpack(x:totable()) for numbers"),
}
