--- Ends the stage when all of the given stops have decided to; each decision is kept.
local stops = require "perigee.stops"

---@class perigee.stops
---@field all fun(...: perigee.Stop): perigee.Stop

---@param ... perigee.Stop
---@return perigee.Stop
return function(...) return stops.combine("all", select("#", ...), math.max, { ... }) end
