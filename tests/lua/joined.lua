--- Several modules as one, with one set of names, as a checkpoint of all of them has:
--- joined { student = s, projectors = { p } }.
local module = require "perigee.nn.module"

local Joined = module.class "joined"

function Joined:build(members)
  for key, member in pairs(members) do self[key] = member end
  self:assign_names()
end

return Joined
