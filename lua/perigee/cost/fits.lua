--- Whether a recipe fits into a device's memory, found out before anything is allocated: what is planned, what is free,
--- and what would fit instead.
local core = require "perigee.core.ffi"
local device = require "perigee.core.device"
local limits = require "perigee.core.limits"
local pieces = require "perigee.cost.pieces"
local price = require "perigee.cost.price"
local size = require "perigee.base.size"

local M = {}

-- Bytes that a device keeps for later: kernels' code, libraries' handles, their first workspaces.
local RESERVED, RESERVED_SHARE = 2 * 2 ^ 30, 1 / 16 -- bytes, and of its memory at most

--- The stage that takes most, of those that were priced.
local function most_of(stages)
  local most
  for _, priced in ipairs(stages) do
    if not most or priced.memory_total > most.memory_total then most = priced end
  end
  return most
end

--- The stage of a recipe that takes most, planned with the processor's kernels, whose scratch is about a GPU's;
--- `changes` are settings that differ from the recipe's.
local function largest(recipe, changes)
  return most_of(price.stages(recipe:with(changes), { device = "h100", kernels = "cpu" }))
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
  local function smaller(low)
    local micro = recipe.micro
    while micro > 1 do
      micro = micro % 2 == 0 and micro / 2 or 1
      if try(micro, low) then return end
    end
  end
  local lower = recipe.precision == "float32"
  if lower then try(recipe.micro, true) end
  smaller(false)
  if lower and #list == 0 then smaller(true) end
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

-- ---- on a GPU -----------------------------------------------------------------------------------------------------

--- Bytes that a GPU's memory of `total` keeps for its libraries.
function M.reserve(total) return math.min(RESERVED, total * RESERVED_SHARE) end

--- The choice is kept like those of algorithms (record/choices.lua): a run that continues finds its checkpoint's.
local function choice_key(recipe, name)
  return ("pieces/%s/%s/%d"):format(device.description(name):match("^[^,]*"):gsub("%s", "-"), recipe.name, recipe.batch)
end

local HOW = { again = true, kept = false } -- recompute, by its word in a choice

--- The recipe as a checkpoint's choices say that it was computed, where it leaves that open.
local function as_before(recipe, name, choices)
  local micro, how = (choices and choices[choice_key(recipe, name)] or ""):match "^(%d+):(%l+)$"
  micro = tonumber(micro)
  if not micro or HOW[how] == nil or recipe.batch % micro ~= 0 then return recipe end
  local changes = {}
  if recipe.leaves_micro then changes.micro, changes.leaves_micro = micro, false end
  if recipe.recompute == nil then changes.recompute = HOW[how] end
  return recipe:with(changes)
end

--- The recipe as it is computed on a GPU, in pieces that fit into what is free (cost/pieces.lua), and that as a
--- sentence; an error where none does. The runtime's messages learn what is planned.
---@param recipe perigee.Recipe
---@param name string  the device
---@param choices? table<string, string>  of the checkpoint that will be loaded
---@return perigee.Recipe, string
function M.check(recipe, name, choices)
  local free, total = device.memory(name)
  local reserved = M.reserve(total)
  free = free - reserved
  local open = as_before(recipe, name, choices)
  local way, tried = pieces.choose(open, free, "h100")
  local last = way or tried[#tried]
  core.C.pg_memory_expect(core.device_code[name], last.bytes)
  local chosen = recipe:with { micro = last.micro, recompute = last.recompute }
  if not way then
    error(too_large(chosen, most_of(last.stages), ("%s has %s of %s free, besides %s for its libraries"):format(name,
      size.text(math.max(free, 0)), size.text(total), size.text(reserved)), free), 0)
  end
  core.check(core.C.pg_choice_keep(choice_key(recipe, name), ("%d:%s"):format(way.micro,
    way.recompute and "again" or "kept")))
  return chosen, ("%s of %s that %s has free"):format(pieces.text(recipe, way), size.text(free), name)
end

return M
