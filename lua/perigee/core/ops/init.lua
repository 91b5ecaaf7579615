--- Every op: the public functions of all files in this folder, in one table, and the methods they give to operands.
local core = require "perigee.core.ffi"
local operand = require "perigee.core.operand"
local room = require "perigee.core.room"

local ops = {}
package.loaded["perigee.core.ops"] = ops -- the files below refer to it

for _, name in ipairs(room.names "perigee.core.ops") do
  local exported = require("perigee.core.ops." .. name)
  for key, value in pairs(exported) do
    if key == "methods" then
      for method, body in pairs(value) do
        if operand.methods[method] then error(("method %s is given by two ops"):format(method)) end
        operand.methods[method] = body
      end
    else
      if ops[key] then error(("op %s is exported by two files"):format(key)) end
      ops[key] = value
    end
  end
end

setmetatable(ops, { __index = function(_, key)
  core.fail("unknown op '%s'%s", tostring(key), require("perigee.core.torch").op(tostring(key), ops))
end })
require "perigee.core.inplace"
return ops
