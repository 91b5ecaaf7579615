--- The page of `perigee watch`: runs as lines of text, with curves of eighths of a character.
local by_time = require "perigee.compare.by_time"
local duration = require("perigee.record.progress").duration
local printable = require "perigee.base.printable"
local tables = require "perigee.base.tables"

local M = {}

local BLOCKS = { [0] = "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
local NAMES = 12 -- columns of a row's name, its value and the space around
local BESIDE = NAMES + 12

--- Means of a series over `width` equal parts of steps 0 ... last; a part without a value has that before it, until the
--- last value. Nil elsewhere.
local function columns_of(series, last, width)
  local sums, counts = {}, {}
  for k, step in ipairs(series and series.steps or {}) do
    local place = math.min(width, math.floor(step / last * width) + 1)
    if series.values[k] == series.values[k] then
      sums[place], counts[place] = (sums[place] or 0) + series.values[k], (counts[place] or 0) + 1
    end
  end
  local means, before = {}, nil
  local final = series and series.steps[#series.steps]
  for place = 1, final and math.min(width, math.floor(final / last * width) + 1) or 0 do
    before = sums[place] and sums[place] / counts[place] or before
    means[place] = before
  end
  return means
end

--- A curve from its least to its greatest value, or between given bounds.
---@return string
function M.spark(series, last, width, low, high)
  local means, parts = columns_of(series, last, width), {}
  if not low then
    low, high = math.huge, -math.huge
    for _, v in pairs(means) do low, high = math.min(low, v), math.max(high, v) end
  end
  for place = 1, width do
    local v = means[place]
    local share = v and (high > low and (v - low) / (high - low) or 0.5)
    parts[place] = v and BLOCKS[math.max(0, math.min(7, math.floor(share * 8)))] or " "
  end
  return table.concat(parts)
end

local function row(name, series, last, width, low, high)
  local value = series and series.values[#series.values]
  return ("  %-" .. NAMES .. "s%9s %s"):format(#name > NAMES and name:sub(1, NAMES - 2) .. ".." or name,
    value and ("%.4g"):format(value) or "-", M.spark(series, last, width, low, high))
end

--- The step at which a run's last stage ends, if its policy says one.
local function end_of(record)
  local stages = record.config.stages or {}
  local finish = stages[#stages] and tostring(stages[#stages].finish) or ""
  return tonumber(finish:match "at_step%((%d+)%)")
end

local function speed_of(record)
  local rates = record.series["step.images_per_second"]
  return rates and rates.values[#rates.values]
end

--- A run's first lines: where it stands.
local function head(record)
  local stage, whole, rate = record.stages[#record.stages], end_of(record), speed_of(record)
  local left = whole and rate and rate > 0 and not record.ended
    and duration((whole - record.last_step) * (record.config.batch or 1) / rate) .. " left" or nil
  local parts = { ("step %d%s"):format(record.last_step, whole and "/" .. whole or "") }
  if record.ended then parts[#parts + 1] = "ended: " .. record.ended
  elseif stage then parts[#parts + 1] = "stage " .. stage.name end
  if rate then parts[#parts + 1] = ("%.4g images/s"):format(rate) end
  parts[#parts + 1] = left
  local lines = { ("%s  %s"):format(record.label, table.concat(parts, ", ")) }
  for k = 2, #record.stages do
    local before = record.stages[k - 1]
    lines[#lines + 1] = ("  %s ended at step %d: %s"):format(before.name, before.to, before.reason or "")
  end
  return lines
end

--- One run, in at most `height` lines.
local function block(record, width, height)
  local lines, last = head(record), math.max(1, end_of(record) or record.last_step)
  local function add(...)
    if #lines < height then lines[#lines + 1] = row(...) end
  end
  for _, name in ipairs(tables.sorted_keys(record.series)) do
    if name:match "^loss%." then add(name:sub(6), record.series[name], last, width) end
  end
  for _, map in ipairs(by_time.maps(record)) do
    if map.name:match "angle" and #lines + 1 < height then
      lines[#lines + 1] = ("  %s, 0 in the middle"):format(map.name)
      local most = 0
      for _, each in ipairs(map.rows) do
        for _, v in ipairs(record.series[each.series] and record.series[each.series].values or {}) do
          most = math.max(most, math.abs(v))
        end
      end
      for _, each in ipairs(map.rows) do
        add(each.label:gsub(" to ", "-"):gsub(" = ", " "), record.series[each.series], last, width, -most, most)
      end
    end
  end
  return lines
end

--- The page: lines that fit into a terminal.
---@param records perigee.Record[]
---@param columns integer
---@param rows integer
---@return string[]
function M.lines(records, columns, rows)
  local all, each = {}, math.max(3, math.floor(rows / #records) - 1)
  for k, record in ipairs(records) do
    if k > 1 then all[#all + 1] = "" end
    for _, line in ipairs(block(record, math.max(8, columns - BESIDE - 1), each)) do
      all[#all + 1] = printable.text(line)
    end
  end
  return all
end

return M
