--- What a file of weights is: which table of names (io/names/) fits it, and under which beginnings of names, as "ema.".
local core = require "perigee.core.ffi"
local names_room = require "perigee.io.names"
local room = require "perigee.core.room"
local translation = require "perigee.io.translation"

local M = {}

-- What is taken first, where a file has several: moving averages, teachers, then the rest by name.
local PREFERRED = { "ema", "teacher", "module%.base_encoder", "model" }

local function rank(prefix)
  for k, pattern in ipairs(PREFERRED) do
    if prefix:find(pattern) then return k end
  end
  return prefix == "" and 0 or #PREFERRED + 1
end

--- The beginnings under which a file has a name.
local function prefixes_of(file, mark)
  local list = {}
  for _, name in ipairs(file.names) do
    local prefix = name:sub(-#mark) == mark and name:sub(1, -#mark - 1)
    if prefix and (prefix == "" or prefix:sub(-1) == ".") then list[#list + 1] = prefix end
  end
  table.sort(list, function(a, b)
    if rank(a) ~= rank(b) then return rank(a) < rank(b) end
    return a < b
  end)
  return list
end

--- Has the output layer as many rows as the table says?
local function outputs_fit(file, names, prefix)
  if not names.outputs then return true end
  local last = file.entries[prefix .. "final_layer.linear.weight"]
  local patches = file.entries[prefix .. "x_embedder.proj.weight"]
  if not last or not patches or #patches.shape ~= 4 then return false end
  return last.shape[1] == names.outputs * patches.shape[2] * patches.shape[3] * patches.shape[4]
end

--- How a table fits the names under a prefix: the marks that are missing, the names it does not know, and how many it
--- ignores.
local function compare(file, names, prefix)
  local fit = { lacking = {}, unknown = {}, ignored = 0 }
  for _, mark in ipairs(names.marks) do
    if not file.entries[prefix .. mark] then fit.lacking[#fit.lacking + 1] = mark end
  end
  local misspelt = {}
  for _, name in pairs(names.aliases or {}) do misspelt[name] = true end
  for _, name in ipairs(names[1] and file.names or {}) do
    local own = name:sub(1, #prefix) == prefix and name:sub(#prefix + 1)
    local known = not own or translation.inward(names, own) or misspelt[own] or (names.fixed or {})[own]
    if not known and translation.is_ignored(own, { names.ignored }) then fit.ignored = fit.ignored + 1
    elseif not known then fit.unknown[#fit.unknown + 1] = own end
  end
  fit.perfect = #fit.lacking == 0 and #fit.unknown == 0 and outputs_fit(file, names, prefix)
  return fit
end

--- The argument `model` of the script that saved a file, if it says one.
local function argued_model(file)
  local value = file.value
  local args = type(value) == "table" and value.get and value.keys and value:get "args"
  local model = type(args) == "table" and args.keys and args:get "model"
  return type(model) == "string" and model or nil
end

--- The table of names that a file of Perigee's says it is written by.
local function stated_names(file)
  local value = file.value
  local found = type(value) == "table" and value.get and value.keys and value:get "names" or file.metadata.names
  return type(found) == "string" and found or nil
end

--- Of tables that all fit: one, or the names of those that a file's own names can't tell apart.
local function choose(fits, file)
  local model, stated = argued_model(file), stated_names(file)
  for _, candidate in ipairs(fits) do
    if candidate.names == stated then return candidate end
  end
  table.sort(fits, function(a, b)
    if a.fit.ignored ~= b.fit.ignored then return a.fit.ignored < b.fit.ignored end
    if #a.table.marks ~= #b.table.marks then return #a.table.marks > #b.table.marks end
    if a.table.plain ~= b.table.plain then return a.table.plain == true end
    return a.names < b.names
  end)
  local differing = {}
  for _, candidate in ipairs(fits) do
    if candidate.table.convert then differing[#differing + 1] = candidate end
  end
  if #differing < 2 then return fits[1] end
  for _, candidate in ipairs(differing) do
    if model and model:find(candidate.table.of_model) then return candidate end
  end
  local names = {}
  for k, candidate in ipairs(differing) do names[k] = candidate.names end
  return nil, names
end

---@class perigee.WeightsKind
---@field names string       of the table
---@field table table
---@field prefix string      the beginning of the names that is taken first
---@field prefixes string[]  all that fit

---@class perigee.WeightsUnknown
---@field ambiguous? string[]  tables that the names can't tell apart
---@field names? string        the nearest table
---@field lacking? string[]    names that it expects
---@field unknown? string[]    names that it does not know

--- Recognises a file, among the tables of a family of models (nil: all).
---@param file perigee.WeightsFile
---@param family? string
---@return perigee.WeightsKind?
---@return perigee.WeightsUnknown?
function M.recognise(file, family)
  local fits, nearest = {}, nil
  for _, key in ipairs(room.names "perigee.io.names") do
    local names = names_room[key]
    local candidate
    for _, prefix in ipairs((not family or names.family == family) and prefixes_of(file, names.marks[1]) or {}) do
      local fit = compare(file, names, prefix)
      if fit.perfect then
        candidate = candidate or { names = key, table = names, prefix = prefix, prefixes = {}, fit = fit }
        table.insert(candidate.prefixes, prefix)
      else
        local distance = #fit.unknown + 10 * #fit.lacking
        if not nearest or distance < nearest.distance then
          nearest = { names = key, prefix = prefix, lacking = fit.lacking, unknown = fit.unknown, distance = distance }
        end
      end
    end
    fits[#fits + 1] = candidate
  end
  if not fits[1] then return nil, nearest or {} end
  local chosen, ambiguous = choose(fits, file)
  if chosen then return chosen end
  return nil, { ambiguous = ambiguous, prefixes = fits[1].prefixes }
end

local function listed(names)
  local shown = {}
  for k = 1, math.min(#names, 3) do shown[k] = "'" .. names[k] .. "'" end
  return table.concat(shown, ", ") .. (#names > 3 and (" and %d more"):format(#names - 3) or "")
end

--- Why a file was not recognised, as a sentence.
---@param why perigee.WeightsUnknown
---@return string
function M.sentence(why)
  if why.ambiguous then
    return ("its names are those of %s alike; say which with names"):format(table.concat(why.ambiguous, " and "))
  elseif not why.names then return "its names are in no known table" end
  local parts = {}
  if #why.lacking > 0 then parts[#parts + 1] = "lacks " .. listed(why.lacking) end
  if #why.unknown > 0 then parts[#parts + 1] = "has " .. listed(why.unknown) .. " besides" end
  if #parts == 0 then parts[1] = "has an output layer of another size" end
  return ("its names are in no known table; the nearest is %s (%s), of which it %s"):format(why.names,
    names_room[why.names].what, table.concat(parts, " and "))
end

--- The prefix that is wanted: the first, or the first that is, or begins with, `take`.
local function taken(file, prefixes, take)
  if not take then return prefixes[1] end
  for _, prefix in ipairs(prefixes) do
    if prefix == take or prefix:sub(1, #take + 1) == take .. "." then return prefix end
  end
  core.fail("%s: it has no weights under '%s'; it has them under %s", file.path, take, M.prefixes_text(prefixes))
end

--- Prefixes as text: "'ema' and 'model'".
function M.prefixes_text(prefixes)
  local shown = {}
  for k, prefix in ipairs(prefixes) do shown[k] = prefix == "" and "no name" or "'" .. prefix:sub(1, -2) .. "'" end
  return table.concat(shown, " and ")
end

--- A file's kind and the prefix to take; an error where the file is unknown, or of a kind that no model of the family
--- holds.
---@param file perigee.WeightsFile
---@param family? string
---@param options? { names?: string, take?: string }  the table, where it is known; the part: "ema", "model"
---@return perigee.WeightsKind
function M.expect(file, family, options)
  options = options or {}
  local kind, why
  if (options.names or "auto") == "auto" then kind, why = M.recognise(file, family)
  else
    local names = names_room[options.names]
    local prefixes = prefixes_of(file, names.marks[1])
    kind = { names = options.names, table = names, prefixes = prefixes[1] and prefixes or { "" } }
  end
  local other = not kind and family and M.recognise(file)
  if other then
    core.fail("%s: it is %s, which a model of another family holds", file.path, other.table.what)
  end
  if not kind then core.fail("%s: %s", file.path, M.sentence(why)) end
  kind.prefix = taken(file, kind.prefixes, options.take)
  return kind
end

return M
