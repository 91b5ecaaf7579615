local npy = require "perigee.io.npy"

return { file = "x.npy", read = function(_, path) return npy.load(path) end }
