local shards = require "perigee.io.shards"

return { file = "model.safetensors.index.json", read = function(_, path) return shards.open(path) end }
