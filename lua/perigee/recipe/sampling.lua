--- How samples are drawn: declared here once, for a recipe's `sample`, for run:sample { ... } at a console, and as the
--- options of `perigee sample` and `perigee eval`. The samplers' own options come from their files.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"
local samplers = require "perigee.samplers"
local tables = require "perigee.base.tables"

---@class perigee.SampleSettings
---@field count? integer       64
---@field cfg? number          guidance scale; 1, the default, is none
---@field interval? number[]   { low, high }: times in which guidance acts: { 0, 1 }
---@field sampler? string      euler; the names are those of lua/perigee/samplers/
---@field seed? integer        0
---@field labels? "balanced"|"drawn"|integer[]  round the classes, the default; drawn uniformly; or a list, in turn
---@field [string] any         the sampler's own, such as `steps`

local M = {}

-- name, rule (core/check.lua), help
local COMMON = {
  { "count", { "count", 64 }, "how many samples" },
  { "cfg", { "number", 1, least = 0 }, "guidance scale; 1 is none" },
  { "interval", { "numbers", { 0, 1 }, length = 2, least = 0, most = 1 }, "times in which guidance acts" },
  { "sampler", { "string", "euler" } },
  { "seed", { "natural", 0 }, "seed of noise and drawn labels" },
  { "labels", { "string|table", "balanced" }, "balanced, drawn, or classes such as 3 or 1,5,7" },
}

-- ---- checks -----------------------------------------------------------------------------------------------------

local function check_guidance(what, o, student)
  if o.interval[1] > o.interval[2] then
    core.fail("%s: interval is { %g, %g }; expected { low, high } with low <= high", what, o.interval[1],
      o.interval[2])
  end
  if o.cfg == 1 then return end
  if not student.null_label or not student.drop_labels then
    core.fail("%s: cfg = %g, but the student has no null label; guidance needs `null_label` and `drop_labels`", what,
      o.cfg)
  elseif student.drop_label == 0 then
    core.fail("%s: cfg = %g, but the student's drop_label is 0, so its null label is never trained; use drop_label = "
      .. "0.1, or cfg = 1", what, o.cfg)
  end
end

local WAYS = { "balanced", "drawn" }

local function check_labels(what, labels, classes)
  if type(labels) == "string" then
    if labels ~= "balanced" and labels ~= "drawn" then
      core.fail("%s: labels is '%s'; expected balanced, drawn, or a list of classes%s", what, labels,
        nearest.hint(labels, WAYS))
    end
    return
  end
  if #labels == 0 then core.fail("%s: labels is an empty list; expected classes from 0 to %d", what, classes - 1) end
  for k, label in ipairs(labels) do
    if type(label) ~= "number" or label % 1 ~= 0 or label < 0 or label >= classes then
      core.fail("%s: labels[%d] is %s; expected a class from 0 to %d", what, k, tostring(label), classes - 1)
    end
  end
end

--- An option that only other samplers have.
local function check_owner(what, given, sampler)
  for key in pairs(given) do
    if not samplers.find(sampler).options[key] then
      local owners = {}
      for _, name in ipairs(samplers.names()) do
        if samplers.find(name).options[key] then owners[#owners + 1] = name end
      end
      local own = tables.sorted_keys(samplers.find(sampler).options)
      if owners[1] then
        core.fail("%s: '%s' is an option of %s; %s has %s", what, tostring(key), table.concat(owners, ", "), sampler,
          own[1] and table.concat(own, ", ") or "none")
      end
    end
  end
end

--- Settings in full, checked. An error names `what` and, in a recipe, the recipe's line.
---@param what string     "recipe: sample"
---@param given perigee.SampleSettings
---@param student perigee.Module
---@param otherwise? perigee.SampleSettings  settings in full that hold where `given` says nothing
---@return perigee.SampleSettings
function M.settings(what, given, student, otherwise)
  otherwise = otherwise or {}
  local spec = {}
  for _, entry in ipairs(COMMON) do spec[entry[1]] = entry[2] end
  local name = given.sampler or otherwise.sampler or spec.sampler[2]
  for key, rule in pairs(samplers.find(name).options) do spec[key] = rule end
  check_owner(what, given, name)
  local kept = {}
  for key in pairs(spec) do kept[key] = otherwise[key] end
  local o = check.options(what, tables.merged(kept, given), spec)
  check_guidance(what, o, student)
  if student.classes then check_labels(what, o.labels, student.classes) end
  return o
end

-- ---- the command line -------------------------------------------------------------------------------------------

local TYPES = { count = "integer", natural = "integer", integer = "integer", number = "number" }
local LEAST = { count = 1, natural = 0 }

--- { name, rule, help } of all settings but `count`: the common ones, then the samplers' by name.
local function entries()
  local list, own, owners = { unpack(COMMON, 2) }, {}, {}
  for _, name in ipairs(samplers.names()) do
    for key, rule in pairs(samplers.find(name).options) do
      own[key] = rule
      owners[key] = owners[key] and owners[key] .. ", " .. name or name
    end
  end
  for _, key in ipairs(tables.sorted_keys(own)) do
    list[#list + 1] = { key, own[key], ("%s of %s: %s"):format(key, owners[key], own[key].help) }
  end
  return list
end

--- Options of a command that samples (base/options.lua): all settings but `count`, which are the recipe's unless given,
--- and how they are made.
---@return perigee.Option[]
function M.command_options()
  local list = {}
  for k, entry in ipairs(entries()) do
    local name, rule, help = unpack(entry)
    if name == "sampler" then help = table.concat(samplers.names(), ", ") end
    local kind = TYPES[rule[1]]
    list[k] = { name = name, type = kind or "string", min = kind and (LEAST[rule[1]] or rule.least),
      max = kind and rule.most, help = help .. " (default: the recipe's)",
      value = name == "interval" and "LOW:HIGH" or nil }
  end
  list[#list + 1] = { name = "batch", type = "integer", default = 64, min = 1,
    help = "samples at a time; changes nothing but speed and memory" }
  list[#list + 1] = { name = "ema", type = "boolean", default = true,
    help = "use the moving averages of the weights; --no-ema does not" }
  return list
end

--- Settings in a line: "heun, 25 steps, guidance 2 in 0:1, seed 0, labels balanced".
---@param settings perigee.SampleSettings  in full
---@return string
function M.describe(settings)
  local parts, labels = { settings.sampler }, settings.labels
  local own = samplers.find(settings.sampler).options
  for _, key in ipairs(tables.sorted_keys(own)) do
    parts[#parts + 1] = own[key][1] == "count" and ("%d %s"):format(settings[key], key)
      or ("%s %g"):format(key, settings[key])
  end
  parts[#parts + 1] = ("guidance %g in %g:%g, seed %d, labels %s"):format(settings.cfg, settings.interval[1],
    settings.interval[2], settings.seed, type(labels) == "table" and table.concat(labels, ",") or labels)
  return table.concat(parts, ", ")
end

local parse = {}

function parse.interval(text)
  local low, high = text:match "^([%d%.]+):([%d%.]+)$"
  if not tonumber(low) or not tonumber(high) then
    error(("--interval %s: expected LOW:HIGH, such as 0:0.72"):format(text), 0)
  end
  return { tonumber(low), tonumber(high) }
end

function parse.labels(text, classes)
  if text == "balanced" or text == "drawn" then return text end
  local list = {}
  for word in text:gmatch "[^,]+" do
    local label = tonumber(word)
    if not label or label % 1 ~= 0 or label < 0 or label >= classes then list = {} break end
    list[#list + 1] = label
  end
  if #list == 0 then
    error(("--labels %s: expected balanced, drawn, or numbers from 0 to %d"):format(text, classes - 1), 0)
  end
  return list
end

--- Settings in full out of a command's options, by its recipe where nothing is given.
---@param options table  values of command_options(), and perhaps `count`
---@param recipe perigee.Recipe
---@return perigee.SampleSettings
function M.from_command(options, recipe)
  local given = { count = options.count }
  for _, entry in ipairs(entries()) do
    local name = entry[1]
    local value = options[name]
    if value ~= nil and parse[name] then value = parse[name](value, recipe.student.classes) end
    given[name] = value
  end
  return M.settings("sample", given, recipe.student, recipe.sample)
end

return M
