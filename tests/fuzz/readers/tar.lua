local tar = require "perigee.io.tar"

return { file = "x.tar", read = function(_, path)
  local archive = tar.open(path)
  for _, name in ipairs(archive.names) do archive:read(name, 2 ^ 16) end
end }
