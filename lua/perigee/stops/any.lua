--- Ends the stage when any of the given stops does.
local stops = require "perigee.stops"

---@class perigee.stops
---@field any fun(...: perigee.Stop): perigee.Stop

---@param ... perigee.Stop
---@return perigee.Stop
return function(...) return stops.combine("any", 1, math.min, { ... }) end
