--- What signals say by noise level: rows of series, one a bin or a time.
local M = {}

---@class perigee.TimeRow
---@field series string  its name in the record
---@field label string   "t 0 to 0.125", "t = 0.5"
---@field at number      where it begins

--- signal.NAME.bins.K.mean, with where the bins lie.
local function add_bins(record, maps)
  for name in pairs(record.series) do
    local whole, k = name:match "^(signal%..-)%.bins%.(%d+)%.mean$"
    if whole then
      local from = record.series[("%s.bins.%d.from"):format(whole, k)]
      local to = record.series[("%s.bins.%d.to"):format(whole, k)]
      local known = from and to
      maps[whole] = maps[whole] or {}
      table.insert(maps[whole], { series = name, at = known and from.values[1] or tonumber(k),
        label = known and ("t %.3g to %.3g"):format(from.values[1], to.values[1]) or "bin " .. k })
    end
  end
end

--- Lists of cosines whose elements belong to times: a probe's.
local function add_times(record, maps)
  for name, parts in pairs(record.parts) do
    local rows = {}
    for k, part in ipairs(parts) do
      local time = tonumber(part:match "^t = (.*)")
      if time then rows[#rows + 1] = { series = ("%s[%d]"):format(name, k), label = part, at = time } end
    end
    if #rows > 1 and #rows == #parts and name:match "cosine" then maps[name] = rows end
  end
end

--- Signals' names, sorted, each with its rows from data to noise.
---@param record perigee.Record
---@return { name: string, rows: perigee.TimeRow[] }[]
function M.maps(record)
  local maps, list = {}, {}
  add_bins(record, maps)
  add_times(record, maps)
  for name, rows in pairs(maps) do
    table.sort(rows, function(a, b) return a.at < b.at end)
    list[#list + 1] = { name = (name:gsub("^signal%.", "")), rows = rows }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

return M
