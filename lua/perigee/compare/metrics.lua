--- The series of runs that can be plotted, by name.
local nearest = require "perigee.base.nearest"

local M = {}

---@class perigee.Metric
---@field name string
---@field series string[]    the names of its series: one, or one an element
---@field parts? string[]    what the elements are called

--- What a series tells of a bin of noise levels: "mean", "count", "from", ...; nil of any other series.
---@param name string
---@return string?
function M.of_bin(name) return name:match "%.bins%.%d+%.(.+)$" end

--- Names of all series, sorted, lists under the list's name.
---@param records perigee.Record[]
---@return string[]
function M.names(records)
  local seen, names = {}, {}
  for _, record in ipairs(records) do
    for name in pairs(record.series) do
      local list = name:match "^(.*)%[%d+%]$"
      if list and record.parts[list] then name = list end
      if not seen[name] then names[#names + 1] = name end
      seen[name] = true
    end
  end
  table.sort(names)
  return names
end

--- One metric. A list's elements are those of the run that has most of them, called as the runs agree to call them.
local function metric(records, name)
  local parts
  for _, record in ipairs(records) do
    for k, own in ipairs(record.parts[name] or {}) do
      parts = parts or {}
      if parts[k] and parts[k] ~= own then own = ("[%d]"):format(k) end
      parts[k] = own
    end
  end
  if not parts then return { name = name, series = { name } } end
  local series = {}
  for k = 1, #parts do series[k] = ("%s[%d]"):format(name, k) end
  return { name = name, series = series, parts = parts }
end

local function exists(records, name)
  for _, record in ipairs(records) do
    if record.series[name] or record.parts[name] then return true end
  end
  return false
end

--- Names near to one that nothing has: the nearest, and those that contain it or its last part.
local function hint(wanted, names)
  local near = { nearest.find(wanted, names) }
  local last = wanted:match "[^.]+$" or wanted
  for _, name in ipairs(names) do
    if name ~= near[1] and name:lower():find(last:lower(), 1, true) and #near < 4 then near[#near + 1] = name end
  end
  if #near == 0 then return "" end
  for k, name in ipairs(near) do near[k] = ('"%s"'):format(name) end
  return ("; did you mean %s?"):format(table.concat(near, " or "))
end

--- The metrics that a name stands for: itself, or all below it, as in "loss" or "signal.gradient_angle".
---@param records perigee.Record[]
---@param wanted string
---@return perigee.Metric[]
function M.find(records, wanted)
  if exists(records, wanted) then return { metric(records, wanted) } end
  local list, names = {}, M.names(records)
  for _, name in ipairs(names) do
    if name:sub(1, #wanted + 1) == wanted .. "." then list[#list + 1] = metric(records, name) end
  end
  if #list == 0 then
    error(('--metric: no run has "%s"%s (--list lists them)'):format(wanted, hint(wanted, names)), 0)
  end
  return list
end

--- The metrics of a list of names, in its order, each once; without a list, the losses and the signals, but
--- not their bins of noise levels.
---@param records perigee.Record[]
---@param wanted string[]
---@return perigee.Metric[]
function M.select(records, wanted)
  local list, seen = {}, {}
  local function take(found)
    for _, one in ipairs(found) do
      if not seen[one.name] then list[#list + 1] = one end
      seen[one.name] = true
    end
  end
  for _, name in ipairs(wanted) do take(M.find(records, name)) end
  if #wanted == 0 then
    for _, name in ipairs(M.names(records)) do
      local signal = name:match "^signal%." and not name:match "%.images$" and not M.of_bin(name)
      if signal or name:match "^loss%." then take { metric(records, name) } end
    end
  end
  return list
end

return M
