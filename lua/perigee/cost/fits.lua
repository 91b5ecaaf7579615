--- Whether a recipe fits into a device's memory, found out before anything is allocated: what is planned, what is free,
--- and what would fit instead.
local core = require "perigee.core.ffi"
local ffi = require "ffi"
local device = require "perigee.core.device"
local limits = require "perigee.core.limits"
local price = require "perigee.cost.price"
local size = require "perigee.base.size"
local tensor = require "perigee.core.tensor"

local M = {}

-- Bytes that a device keeps for later: kernels' code, libraries' handles, their first workspaces.
local RESERVED, RESERVED_SHARE = 2 * 2 ^ 30, 1 / 16 -- bytes, and of its memory at most
local ROUGHLY = 1.25 -- what takes more than so many times what is free isn't planned exactly before it is refused

--- The stage of a recipe that takes most, priced. `changes` are settings that differ from the recipe's. Planned with
--- the device's kernels (`exactly`), algorithms are timed and chosen, which a run then finds made; with the CPU's,
--- whose scratch is about as large, nothing is tried out.
local function largest(recipe, changes, exactly)
  local variant, most = setmetatable(changes or {}, { __index = recipe }), nil
  for _, stage in ipairs(recipe.stages) do
    local priced = tensor.tidy(function()
      return price.stage(variant, stage, { device = "h100", kernels = not exactly and "cpu" or nil })
    end)
    if not most or priced.memory_total > most.memory_total then most = priced end
  end
  return most
end

local function purposes(memory)
  local list = {}
  for name, bytes in pairs(memory) do
    if bytes > 0 then list[#list + 1] = { name, bytes } end
  end
  table.sort(list, function(a, b) return a[2] > b[2] end)
  for k, entry in ipairs(list) do list[k] = ("%s %s"):format(entry[1], size.text(entry[2])) end
  return table.concat(list, ", ")
end

--- Smaller settings that fit, as texts: a lower precision, pieces of the batch, or both.
local function alternatives(recipe, free)
  local list = {}
  local function try(micro, low)
    local texts = { low and 'precision = "bf16"' or nil }
    if micro < recipe.micro then
      texts[#texts + 1] = ("micro = %d, the batch in %d pieces"):format(micro, recipe.batch / micro)
    end
    local bytes = largest(recipe, { micro = micro, precision = low and "bf16" or nil,
                                    dtype = low and "bfloat16" or nil }).memory_total
    if bytes <= free then list[#list + 1] = ("%s (%s)"):format(table.concat(texts, " and "), size.text(bytes)) end
    return bytes <= free
  end
  --- The largest pieces that fit.
  local function pieces(low)
    local micro = recipe.micro
    while micro > 1 do
      micro = micro % 2 == 0 and micro / 2 or 1
      if try(micro, low) then return end
    end
  end
  local lower = recipe.precision == "float32"
  if lower then try(recipe.micro, true) end
  pieces(false)
  if lower and #list == 0 then pieces(true) end
  return list
end

--- The memory that a recipe needs, and settings that would fit, as an error's text.
local function too_large(recipe, most, where, free)
  local others = alternatives(recipe, free)
  return ("recipe %s: stage %s needs %s (%s); %s. %s"):format(recipe.name, most.stage, size.text(most.memory_total),
    purposes(most.memory), where, #others > 0 and "These would fit: " .. table.concat(others, "; or ")
      or "No smaller piece of the batch would fit either")
end

local PLENTY, SHARE = 4 * 2 ^ 30, 64 -- bytes free; of them, what a small model's parameters take at most

--- Holds a recipe against the memory that this process may use (core/limits.lua): an error if it can never fit, a
--- sentence if it is more than what is free now. Nothing is planned where there is plenty.
---@param recipe perigee.Recipe
---@return string?
function M.check_host(recipe)
  local host, numbers = limits.memory(), 0
  if not host then return nil end
  for _, trained in ipairs(recipe:trained_modules()) do numbers = numbers + trained.module:parameter_count() end
  if host.free > math.max(PLENTY, SHARE * core.dtype_bytes[recipe.dtype] * numbers) then return nil end
  local most = largest(recipe)
  local where = ("%s has %s, %s free"):format(host.whose == "ulimit" and "this process, by ulimit," or host.whose,
    size.text(host.total), size.text(host.free))
  if most.memory_total > host.total then error(too_large(recipe, most, where, host.total), 0) end
  if most.memory_total > host.free then
    return ("stage %s needs %s; %s"):format(most.stage, size.text(most.memory_total), where)
  end
end

-- ---- computing again, or keeping ----------------------------------------------------------------------------------

--- The choice is kept like those of algorithms (record/choices.lua): a run that continues finds its checkpoint's.
local function choice_key(recipe, name)
  return ("recompute/%s/%s/%dx%d"):format(device.description(name):match("^[^,]*"):gsub("%s", "-"), recipe.name,
    recipe.batch, recipe.micro)
end

--- Whether a run of the recipe on a device computes cheap values again: as the recipe says; on a GPU as M.check chose.
---@return boolean
function M.recomputes(recipe, name)
  if recipe.recompute ~= nil or name == "cpu" then return recipe.recompute ~= false end
  local choice = core.C.pg_choice_find(choice_key(recipe, name))
  return choice == nil or ffi.string(choice) ~= "no"
end

--- Bytes that the device has free besides its reserve, its memory in all, and the reserve.
local function room(name)
  local free, total = device.memory(name)
  local reserved = math.min(RESERVED, total * RESERVED_SHARE)
  return free - reserved, total, reserved
end

--- The largest stage where values are computed again, or kept, planned exactly unless it is far too large.
local function planned(recipe, recompute, free)
  local most = largest(recipe, { recompute = recompute })
  if most.memory_total <= ROUGHLY * free then most = largest(recipe, { recompute = recompute }, true) end
  return most
end

--- An error unless every stage fits into what a device has free; the runtime's messages learn what is planned. Values
--- are kept for the backward pass where there is room for them.
---@param recipe perigee.Recipe
---@param name string  the device
function M.check(recipe, name)
  local free, total, reserved = room(name)
  local most
  for _, recompute in ipairs(recipe.recompute == nil and { false, true } or { recipe.recompute }) do
    most = planned(recipe, recompute, free)
    core.C.pg_memory_expect(core.device_code[name], most.memory_total)
    if most.memory_total <= free then
      core.check(core.C.pg_choice_keep(choice_key(recipe, name), recompute and "yes" or "no"))
      return
    end
  end
  error(too_large(recipe, most, ("%s has %s of %s free, besides %s for its libraries"):format(name,
    size.text(math.max(free, 0)), size.text(total), size.text(reserved)), free), 0)
end

return M
