local config = require "perigee.record.config"
local files = require "perigee.io.files"

return { file = "config.json", read = function(_, path) return config.read((files.split(path))) end }
