--- How samples are drawn: declared here once, for a recipe's `sample`, for run:sample { ... } at a console, and as the
--- options of `perigee sample` and `perigee eval`. The samplers' own options come from their files.
local check = require "perigee.core.check"
local conditions = require "perigee.stage.conditions"
local core = require "perigee.core.ffi"
local nearest = require "perigee.base.nearest"
local paths = require "perigee.paths"
local samplers = require "perigee.samplers"
local tables = require "perigee.base.tables"

---@class perigee.SampleSettings
---@field count? integer       64
---@field cfg? number          guidance scale; 1, the default, is none
---@field interval? number[]   { low, high }: times in which guidance acts: { 0, 1 }
---@field cfg_channels? integer  guidance acts on the first so many channels alone; all
---@field guide? string        autoguidance: a run or checkpoint of a worse model in place of the null condition
---@field sampler? string      euler, on a diffusion ddpm; the names are those of lua/perigee/samplers/
---@field seed? integer        0
---@field labels? "balanced"|"drawn"|"data"|integer[]  round the classes, the default; drawn uniformly; those of the
---  data set's records, the default where the student takes other inputs too; or a list, in turn
---@field conditions? table<string, number|number[]|string>  values of the student's other inputs, by name
---  (sampling/values.lua); records of the data set, in turn, where nothing is said
---@field [string] any         the sampler's own, such as `steps`

local M = {}

-- name, rule (core/check.lua), help
local COMMON = {
  { "count", { "count", 64 }, "how many samples" },
  { "cfg", { "number", 1, least = 0, instead = "for guidance in a part of the times, set interval = { low, high }" },
    "guidance scale; 1 is none" },
  { "interval", { "numbers", { 0, 1 }, length = 2, least = 0, most = 1 }, "times in which guidance acts" },
  { "cfg_channels", { "count" }, "channels on which guidance acts, the first: 3 in SiT's and DiT's scripts" },
  { "guide", { "string" }, "autoguidance: a worse model, a run or checkpoint, for the null condition" },
  { "sampler", { "string" } },
  { "seed", { "natural", 0 }, "seed of noise and drawn labels" },
  { "labels", { "string|table" }, "balanced, drawn, data, or classes such as 3 or 1,5,7" },
  { "conditions", { "table" },
    "an input of the student's: a number, FILE.npy or .npz, data, data:RECORD" },
}

-- ---- checks -----------------------------------------------------------------------------------------------------

local function check_guidance(what, o, student)
  if o.interval[1] > o.interval[2] then
    core.fail("%s: interval is { %g, %g }; expected { low, high } with low <= high", what, o.interval[1],
      o.interval[2])
  end
  if o.guide and o.cfg == 1 then core.fail("%s: guide does nothing with cfg = 1; expected another scale", what) end
  if o.cfg_channels and o.cfg_channels > student.channels then
    core.fail("%s: cfg_channels is %d; the student has %d channels", what, o.cfg_channels, student.channels)
  end
  if o.cfg ~= 1 and not o.guide then conditions.expect_guidance(what, student, o.cfg) end
end

local WAYS = { "balanced", "drawn", "data" }

local function check_labels(what, labels, classes)
  if type(labels) == "string" then
    for _, way in ipairs(WAYS) do
      if labels == way then return end
    end
    core.fail("%s: labels is '%s'; expected balanced, drawn, data, or a list of classes%s", what, labels,
      nearest.hint(labels, WAYS))
  end
  if #labels == 0 then core.fail("%s: labels is an empty list; expected classes from 0 to %d", what, classes - 1) end
  for k, label in ipairs(labels) do
    if type(label) ~= "number" or label % 1 ~= 0 or label < 0 or label >= classes then
      core.fail("%s: labels[%d] is %s; expected a class from 0 to %d", what, k, tostring(label), classes - 1)
    end
  end
end

--- Records of a data set, as a text says: "data" or "test", all in turn; "data:3,1", these.
---@param text string
---@return { data: "data"|"test", records?: integer[] }?  nil: it says something else
function M.records_of(text)
  local name, rest = text:match "^(%a+)(.*)$"
  if name ~= "data" and name ~= "test" then return nil end
  if rest == "" then return { data = name } end
  local records = {}
  if not rest:match "^:%d+[%d,]*$" then return nil end
  for digits in rest:gmatch "%d+" do records[#records + 1] = tonumber(digits) end
  return { data = name, records = records }
end

--- Values of inputs that the student has, of kinds that there are.
local function check_conditions(what, given, student)
  local names = {}
  for _, condition in ipairs(conditions.of(student)) do
    if condition.name ~= "labels" then names[#names + 1] = condition.name end
  end
  for name, value in pairs(given) do
    local known = false
    for _, own in ipairs(names) do known = known or own == name end
    if not known then
      core.fail("%s: the student has no input '%s'%s", what, tostring(name), name == "labels"
        and " here; `labels` (--labels) is a setting of its own"
        or #names > 0 and "; expected one of " .. table.concat(names, ", ") or " to set: it takes labels alone")
    end
    if type(value) == "string" then
      if not M.records_of(value) and not value:match "%.np[yz]$" then
        core.fail("%s: conditions.%s is '%s'; expected a number, FILE.npy, FILE.npz, data, or data:RECORD", what, name,
          value)
      end
    else check.value(("%s: conditions.%s"):format(what, name), value, { "number|numbers", finite = true }) end
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
---@param path? perigee.Path              of the student's loss: linear
---@return perigee.SampleSettings
function M.settings(what, given, student, otherwise, path)
  path = path or paths.linear()
  otherwise = otherwise or {}
  local spec = {}
  for _, entry in ipairs(COMMON) do spec[entry[1]] = entry[2] end
  local name = given.sampler or otherwise.sampler or samplers.default(path)
  samplers.expect_path(name, path)
  for key, rule in pairs(samplers.find(name).options) do spec[key] = rule end
  check_owner(what, given, name)
  local kept = {}
  for key in pairs(spec) do kept[key] = otherwise[key] end
  local all = tables.merged(kept, given)
  if given.conditions and otherwise.conditions then
    all.conditions = tables.merged(otherwise.conditions, given.conditions)
  end
  local o = check.options(what, all, spec)
  o.sampler = name
  check_guidance(what, o, student)
  if o.labels == nil then o.labels = #conditions.of(student) > 1 and "data" or "balanced" end
  if o.conditions then check_conditions(what, o.conditions, student) end
  if student.classes then check_labels(what, o.labels, student.classes) end
  return o
end

-- ---- the command line -------------------------------------------------------------------------------------------

local TYPES = { count = "integer", natural = "integer", integer = "integer", number = "number" }
local LEAST = { count = 1, natural = 0 }
local PLACEHOLDERS = { interval = "LOW:HIGH", set = "INPUT=VALUE" }

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
    if name == "conditions" then name = "set" end
    local kind = TYPES[rule[1]]
    list[k] = { name = name, type = kind or name == "set" and "pairs" or "string",
      min = kind and (LEAST[rule[1]] or rule.least), max = kind and rule.most,
      help = help .. " (default: the recipe's)", value = PLACEHOLDERS[name] }
  end
  list[#list + 1] = { name = "batch", type = "integer", default = 64, min = 1,
    help = "samples at a time; changes nothing but speed and memory" }
  list[#list + 1] = { name = "ema", type = "boolean", default = true,
    help = "use the moving averages of the weights", off = "use the weights themselves, not their moving averages" }
  return list
end

--- Settings in a line: "heun, 25 steps, guidance 2 in 0:1, seed 0, labels balanced".
---@param settings perigee.SampleSettings  in full
---@return string
function M.describe(settings)
  local parts, labels = { settings.sampler }, settings.labels
  local own = samplers.find(settings.sampler).options
  for _, key in ipairs(tables.sorted_keys(own)) do
    local rule, value = own[key], settings[key]
    if not (rule.usual and value == rule[2]) then
      parts[#parts + 1] = rule[1] == "count" and ("%d %s"):format(value, key)
        or ("%s %s"):format(key, type(value) == "number" and ("%g"):format(value) or value)
    end
  end
  for _, name in ipairs(tables.sorted_keys(settings.conditions or {})) do
    local value = settings.conditions[name]
    parts[#parts + 1] = ("%s %s"):format(name, type(value) == "table" and table.concat(value, ",") or tostring(value))
  end
  local where = (settings.cfg_channels and (" on %d channels"):format(settings.cfg_channels) or "")
    .. (settings.guide and " by " .. settings.guide or "")
  parts[#parts + 1] = ("guidance %g in %g:%g%s, seed %d, labels %s"):format(settings.cfg, settings.interval[1],
    settings.interval[2], where, settings.seed, type(labels) == "table" and table.concat(labels, ",") or labels)
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
  if text == "balanced" or text == "drawn" or text == "data" then return text end
  local list = {}
  for word in text:gmatch "[^,]+" do
    local label = tonumber(word)
    if not label or label % 1 ~= 0 or label < 0 or label >= classes then list = {} break end
    list[#list + 1] = label
  end
  if #list == 0 then
    error(("--labels %s: expected balanced, drawn, data, or numbers from 0 to %d"):format(text, classes - 1), 0)
  end
  return list
end

--- Values of inputs as the command line says them: numbers, or texts.
function parse.conditions(texts)
  local values = {}
  for name, text in pairs(texts) do
    values[name] = tonumber(text) or text
    if text:match "^[%d%.eE+,-]+$" and text:find(",", 1, true) then
      values[name] = {}
      for word in text:gmatch "[^,]+" do
        table.insert(values[name], tonumber(word) or error(("--set %s=%s: expected numbers"):format(name, text), 0))
      end
    end
  end
  return next(values) and values or nil
end

--- Settings in full out of a command's options, by its recipe where nothing is given.
---@param options table  values of command_options(), and perhaps `count`
---@param recipe perigee.Recipe
---@return perigee.SampleSettings
function M.from_command(options, recipe)
  local given = { count = options.count }
  for _, entry in ipairs(entries()) do
    local name = entry[1]
    local value = options[name == "conditions" and "set" or name]
    if value ~= nil and parse[name] then value = parse[name](value, recipe.student.classes) end
    given[name] = value
  end
  return M.settings("sample", given, recipe.student, recipe.sample, recipe:path())
end

return M
