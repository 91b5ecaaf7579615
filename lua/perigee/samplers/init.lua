--- Samplers: from noise at t = 1 to data at t = 0 along a velocity field (SiT, arXiv 2401.08740). The state is float64.
--- pg.sampler.NAME is what lua/perigee/samplers/NAME.lua returns, a perigee.Sampler.
---
--- A field is a function (x, t) -> velocity, variance: x float64 [B,...], t a number, or a list of one number for each
--- sample; the variance [B,...] of students that learn it (loss.variational_bound).
--- Guidance (classifier-free, arXiv 2207.12598) is part of the field, see sampling/field.lua: drifts and scores are
--- affine in the velocity, so guiding the velocity guides them.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local paths = require "perigee.paths"
local room = require "perigee.core.room"
local tables = require "perigee.base.tables"

---@class perigee.Sampler
---@field options table<string, table>  its own options: name -> rule of core/check.lua, with `help`
---@field noise? boolean                it draws noise after the first state
---@field discrete? boolean             for a path of discrete times, pg.path.diffusion, and no other
---@field integrate fun(field: function, x: perigee.Tensor, o: perigee.SamplerState): perigee.Tensor

--- The options of `integrate`: the sampler's own options by name, and
---@class perigee.SamplerState
---@field path perigee.Path                            of the flow
---@field noise fun(step: integer): perigee.Tensor     standard normal, float64, of x's shape; steps count from 1
---@field each fun(done: number, x: perigee.Tensor)    to be called after each step; done: from 0 to 1
---@field [string] any

---@class perigee.samplers
---@field [string] perigee.Sampler
local M = {}

--- `count` times from `first` to `last`, evenly spaced.
function M.linspace(first, last, count)
  local times = {}
  for k = 1, count do times[k] = count == 1 and first or first + (last - first) * (k - 1) / (count - 1) end
  return times
end

--- An option of samplers with a grid of times, and what it does to one: t becomes s·t/(1 + (s − 1)·t), nearer to noise
--- where s > 1 (Esser et al. 2024, arXiv 2403.03206, §5.3.2).
function M.shift_rule()
  return { "number", 1, above = 0, usual = true, help = "moves the grid of times, towards noise above 1" }
end

---@param times number[]
---@param shift number
function M.shifted(times, shift)
  local moved = {}
  for k, t in ipairs(times) do moved[k] = shift == 1 and t or shift * t / (1 + (shift - 1) * t) end
  return moved
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

--- The name of the sampler for a path where none is asked for.
---@param path perigee.Path
function M.default(path) return path.indices and "ddpm" or "euler" end

--- An error if a sampler is not for this path.
---@param path perigee.Path
function M.expect_path(name, path)
  local discrete = M.find(name).discrete or false
  if discrete == (path.indices ~= nil) then return end
  local fitting = {}
  for _, other in ipairs(M.names()) do
    if (M.find(other).discrete or false) ~= discrete then fitting[#fitting + 1] = other end
  end
  core.fail("sampler: %s is not for the path '%s', whose times are %s; expected one of %s", name, path.name,
    discrete and "continuous" or "discrete", table.concat(fitting, ", "))
end

local function nothing() end

--- Integrates a field from x (float64, at t = 1) to t = 0.
---@param options { sampler?: string, path?: string|perigee.Path, noise?: fun(step: integer): perigee.Tensor,
---  each?: fun(done: number, x: perigee.Tensor), [string]: any }  and the sampler's own
function M.integrate(field, x, options)
  options = options or {}
  local name = options.sampler or "euler"
  local sampler = M.find(name)
  local o = check.options("sampler", options, tables.merged({
    sampler = { "string" }, path = { "string|table", "linear" }, noise = { "function" },
    each = { "function", nothing },
  }, sampler.options))
  o.path = paths.of(o.path)
  M.expect_path(name, o.path)
  if sampler.noise and not o.noise then core.fail("sampler: %s needs a source of noise", name) end
  return sampler.integrate(field, x:to "float64", o)
end

return room.open({ module = "perigee.samplers", what = "sampler" }, M)
