local zip = require "perigee.io.zip"

return { file = "x.zip", read = function(_, path)
  local archive = zip.open(path)
  for _, name in ipairs(archive.names) do archive:read(name, 2 ^ 16) end
end }
