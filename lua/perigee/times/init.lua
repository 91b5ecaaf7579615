--- Where on the path from data (t = 0) to noise (t = 1) a sample is trained: distributions of t. pg.time.NAME is what
--- lua/perigee/times/NAME.lua returns, a function from options to a distribution.

--- A distribution of t. Its numbers are settings of the loss that uses it.
---@class perigee.Time
---@field name string
---@field draw fun(self: perigee.Time, count: integer, state: perigee.Value, dtype: perigee.Dtype,
---  path: perigee.Path): perigee.Value  [count]

return require("perigee.core.room").open { module = "perigee.times", what = "distribution of times" }
