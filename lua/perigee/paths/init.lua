--- Paths from data (t = 0) to noise (t = 1): x_t = α(t)·x0 + σ(t)·ε, ε standard normal. pg.path.NAME is what
--- lua/perigee/paths/NAME.lua returns, a function from options to a path.
---
--- A student predicts one of three things at x_t: the velocity α'·x0 + σ'·ε, the noise ε or the data x0. Each follows
--- from another, x_t and the coefficients (`convert`).
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local room = require "perigee.core.room"

---@alias perigee.Prediction "velocity"|"noise"|"data"

---@class perigee.Path
---@field name string
---@field settings? table  numbers and texts that decide it
---@field indices? integer  how many times it has, if they are discrete: the student is told 0 ... indices − 1
---@field at fun(self: perigee.Path, t: number): number, number, number, number  α, σ, α', σ' at t
---@field coefficients fun(self: perigee.Path, t: perigee.Value): any, any, any, any  the same of t [B]: [B], or numbers
---@field noised fun(self: perigee.Path, x0: perigee.Value, noise: perigee.Value, t: perigee.Value): perigee.Value,
---  perigee.Value  x_t and the velocity [B,...], of t [B]
---@field time_at fun(self: perigee.Path, z: perigee.Value): perigee.Value  the times where log(σ/α) is z [B]
---@field told fun(self: perigee.Path, t: perigee.Value): perigee.Value  what the student is given as the time, [B]

---@class perigee.paths
local M = {}

M.KINDS = { "velocity", "noise", "data" }

local Path = {}
Path.__index = Path

--- The student is told t itself, unless a path says otherwise.
function Path.told(_, t) return t end

--- x_t and the velocity by the coefficients, in t's dtype, and then in x0's. A path with an op of its own has its own.
function Path:noised(x0, noise, t)
  local shape = { t.shape[1] }
  for d = 2, #x0.shape do shape[d] = 1 end
  local function shaped(c) return type(c) == "number" and c or c:reshape(shape) end
  local alpha, sigma, d_alpha, d_sigma = self:coefficients(t)
  local data, random = x0:to(t.dtype), noise:to(t.dtype)
  return (data * shaped(alpha) + random * shaped(sigma)):to(x0.dtype),
    (data * shaped(d_alpha) + random * shaped(d_sigma)):to(x0.dtype)
end

--- What a student predicts (`from`) as another of velocity, noise and data (`to`). `c` holds alpha, sigma, d_alpha and
--- d_sigma at x's times, numbers or of a shape that x's dtype can be multiplied with.
---@param estimate perigee.Value  [B,...]
---@param from perigee.Prediction
---@param to perigee.Prediction
---@param x perigee.Value         x_t [B,...]
---@param c { alpha: any, sigma: any, d_alpha: any, d_sigma: any }
---@param least_sigma? number     no division by a σ below this: 0
---@return perigee.Value
function M.convert(estimate, from, to, x, c, least_sigma)
  if from == to then return estimate end
  local alpha, sigma, d_alpha, d_sigma = c.alpha, c.sigma, c.d_alpha, c.d_sigma
  local turn = d_sigma * alpha - sigma * d_alpha
  local divisor = sigma
  if least_sigma and least_sigma > 0 then
    divisor = type(sigma) == "number" and math.max(sigma, least_sigma) or ops.maximum(sigma, least_sigma)
  end
  if from == "velocity" then
    if to == "data" then return (x * d_sigma - estimate * sigma) / turn end
    return (estimate * alpha - x * d_alpha) / turn
  elseif from == "noise" then
    if to == "data" then return (x - estimate * sigma) / alpha end
    return (x * d_alpha + estimate * turn) / alpha
  end
  if to == "noise" then return (x - estimate * alpha) / divisor end
  return (x * d_sigma - estimate * turn) / divisor
end

local function make(_, define)
  return function(options) return setmetatable(define(options), Path) end
end

room.open({ module = "perigee.paths", what = "path", make = make }, M)

--- A path by its name, or the path that is given.
---@param path string|perigee.Path
---@return perigee.Path
function M.of(path)
  if type(path) == "string" then return M[path]() end
  if type(path) ~= "table" or type(path.at) ~= "function" then
    core.fail("path is a %s; expected a name or a path, such as pg.path.linear()", type(path))
  end
  return path
end

return M
