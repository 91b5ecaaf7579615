--- Samplers: from noise at t = 1 to data at t = 0 along a velocity field (SiT, arXiv 2401.08740). The state is float64.
--- pg.sampler.NAME is what lua/perigee/samplers/NAME.lua returns, a perigee.Sampler.
---
--- A field is a function (x, t) -> velocity: x float64 [B,...], t a number, or a list of one number for each sample.
--- Guidance (classifier-free, arXiv 2207.12598) is part of the field, see sampling/field.lua: drifts and scores are
--- affine in the velocity, so guiding the velocity guides them.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local room = require "perigee.core.room"
local tables = require "perigee.base.tables"

---@class perigee.Sampler
---@field options table<string, table>  its own options: name -> rule of core/check.lua, with `help`
---@field noise? boolean                it draws noise after the first state
---@field integrate fun(field: function, x: perigee.Tensor, o: perigee.SamplerState): perigee.Tensor

--- The options of `integrate`: the sampler's own options by name, and
---@class perigee.SamplerState
---@field path "linear"|"cosine"                       of the flow, see samplers.path
---@field noise fun(step: integer): perigee.Tensor     standard normal, float64, of x's shape; steps count from 1
---@field each fun(done: number, x: perigee.Tensor)    to be called after each step; done: from 0 to 1
---@field [string] any

---@class perigee.samplers
---@field [string] perigee.Sampler
local M = {}

--- α(t), σ(t) and their derivatives.
function M.path(name, t)
  if name == "cosine" then
    local c, s, q = math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t), math.pi / 2
    return c, s, -q * s, q * c
  end
  return 1 - t, t, -1, 1
end

--- `count` times from `first` to `last`, evenly spaced.
function M.linspace(first, last, count)
  local times = {}
  for k = 1, count do times[k] = count == 1 and first or first + (last - first) * (k - 1) / (count - 1) end
  return times
end

--- The names of all samplers, sorted.
---@return string[]
function M.names() return room.names "perigee.samplers" end

--- A sampler by its name; an error with all names where there is none.
---@return perigee.Sampler
function M.find(name)
  local found = M[name]
  if type(found) == "table" then return found end
  core.fail("unknown sampler '%s'; expected one of %s", tostring(name), table.concat(M.names(), ", "))
end

local function nothing() end

--- Integrates a field from x (float64, at t = 1) to t = 0.
---@param options { sampler?: string, path?: string, noise?: fun(step: integer): perigee.Tensor,
---  each?: fun(done: number, x: perigee.Tensor), [string]: any }  and the sampler's own
function M.integrate(field, x, options)
  options = options or {}
  local name = options.sampler or "euler"
  local sampler = M.find(name)
  local o = check.options("sampler", options, tables.merged({
    sampler = { "string" }, path = { "string", "linear", choices = { "linear", "cosine" } }, noise = { "function" },
    each = { "function", nothing },
  }, sampler.options))
  if sampler.noise and not o.noise then core.fail("sampler: %s needs a source of noise", name) end
  return sampler.integrate(field, x:to "float64", o)
end

return room.open({ module = "perigee.samplers", what = "sampler" }, M)
