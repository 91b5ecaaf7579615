--- Models, by the names that recipes use.
local M = {}
for _, family in ipairs { require "perigee.models.sit", require "perigee.models.vit" } do
  for name, constructor in pairs(family) do M[name] = constructor end
end
return M
