local pytorch = require "perigee.io.pytorch"

return { file = "x.pt", read = function(_, path)
  local file = pytorch.open(path)
  for _, name in ipairs(file.names) do
    local entry = file.entries[name]
    if entry.bytes < 2 ^ 20 and entry.stored ~= "C64" then file:read(name) end
  end
end }
