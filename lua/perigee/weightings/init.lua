--- Weights of a denoising loss by noise level: how much the error of an image at its time counts. pg.weighting.NAME is
--- what lua/perigee/weightings/NAME.lua returns, a function from options to a weighting.
local room = require "perigee.core.room"

--- What a weight is made of, each a value [B] or a number:
---@class perigee.NoiseLevel
---@field alpha any
---@field sigma any
---@field data any   factor by which a squared error of the target is one of x0

---@class perigee.Weighting
---@field name string
---@field settings? table
---@field of fun(self: perigee.Weighting, level: perigee.NoiseLevel): perigee.Value  [B]

---@class perigee.weightings
return room.open({ module = "perigee.weightings", what = "weighting" })
