--- Bytes that a client may write a second: so many at once, and so many more with time. What is written may overdraw it
--- once; the next has to wait until that is made up for.
local C = require("perigee.core.ffi").C
local core = require "perigee.core.ffi"

local M = {}

---@class perigee.Budget
---@field most number   bytes at once
---@field rate number   bytes a second
---@field left number
---@field since number  when `left` was right
local Budget = {}
Budget.__index = Budget

---@param most number
---@param rate number
---@return perigee.Budget
function M.new(most, rate)
  return setmetatable({ most = most, rate = rate, left = most, since = C.pg_clock_seconds() }, Budget)
end

--- An error where nothing is left; `what` was written.
---@param what string
function Budget:expect(what)
  local now = C.pg_clock_seconds()
  self.left, self.since = math.min(self.most, self.left + (now - self.since) * self.rate), now
  if self.left <= 0 then
    core.fail("this console has written too much %s: %d KiB at once, then %d KiB a second; wait %.0f s", what,
      self.most / 1024, self.rate / 1024, math.ceil(-self.left / self.rate) + 1)
  end
end

---@param bytes number
function Budget:spend(bytes) self.left = self.left - bytes end

return M
