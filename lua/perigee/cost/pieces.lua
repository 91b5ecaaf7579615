--- How a batch is computed on a GPU: in pieces of how many images (`micro`), and whether values are kept for the
--- backward pass or cheap ones are computed again (`recompute`). The plan prices both, and the fastest of those that
--- fit is taken; a recipe may insist on either. A processor computes the batch in one piece, and again what is cheap,
--- unless the recipe says otherwise: its results depend on no memory.
local device = require "perigee.core.device"
local price = require "perigee.cost.price"
local size = require "perigee.base.size"

local M = {}

local FINEST = 4 -- pieces so many times smaller than those that fit otherwise aren't tried, to keep values
local ROUGHLY = 1.25 -- what takes more than so many times what is free isn't planned exactly

---@class perigee.Way
---@field micro integer
---@field recompute boolean
---@field bytes number      of the stage that takes most
---@field seconds number    of a step of each stage, together (roofline)
---@field stages table[]    priced

--- Prices every stage of a recipe in one of these ways.
---@param options? { device?: string, kernels?: string }  as for price.stages
---@return perigee.Way
function M.price(recipe, micro, recompute, options)
  local way = { micro = micro, recompute = recompute, bytes = 0, seconds = 0 }
  way.stages = price.stages(recipe:with { micro = micro, recompute = recompute }, options)
  for _, stage in ipairs(way.stages) do
    way.bytes, way.seconds = math.max(way.bytes, stage.memory_total), way.seconds + stage.seconds
  end
  return way
end

--- The sizes of pieces that a recipe leaves open, largest first, or the one that it insists on.
local function sizes_of(recipe)
  if not recipe.leaves_micro then return { recipe.micro } end
  local list = {}
  for micro = recipe.batch, 1, -1 do
    if recipe.batch % micro == 0 then list[#list + 1] = micro end
  end
  return list
end

--- The same, planned with the machine's own kernels, where they are here, unless it is far too large: their algorithms
--- are timed and chosen then, which a run finds made. The processor's take about as much scratch.
local function price_within(recipe, micro, recompute, free, machine)
  local way = M.price(recipe, micro, recompute, { device = machine, kernels = "cpu" })
  if way.bytes > ROUGHLY * free or not device.computes("cuda", recipe.dtype) then return way end
  return M.price(recipe, micro, recompute, { device = machine })
end

--- The fastest way that fits into so many bytes, by the roofline of a machine, or nil, and all that were tried.
---@param machine string
---@return perigee.Way?, perigee.Way[]
function M.choose(recipe, free, machine)
  local hows = recipe.recompute == nil and { false, true } or { recipe.recompute } -- the fastest first
  local tried, fits, best, largest = {}, {}, nil, nil
  for _, micro in ipairs(sizes_of(recipe)) do
    if fits[hows[1]] or largest and micro * FINEST < largest then break end -- smaller pieces are no faster
    for _, recompute in ipairs(hows) do
      if not fits[recompute] and not fits[hows[1]] then
        local way = price_within(recipe, micro, recompute, free, machine)
        tried[#tried + 1] = way
        if way.bytes <= free then
          fits[recompute], largest = true, largest or micro
          if not best or way.seconds < best.seconds then best = way end
        end
      end
    end
  end
  return best, tried
end

--- "256 images in 2 pieces of 128, values kept".
function M.text(recipe, way)
  local pieces = recipe.batch / way.micro
  return ("%d images in %s, %s: %s"):format(recipe.batch,
    pieces == 1 and "one piece" or ("%d pieces of %d"):format(pieces, way.micro),
    way.recompute and "cheap values computed again" or "values kept for the backward pass", size.text(way.bytes))
end

return M
