--- The page of `perigee report`: runs as one HTML file that needs no network. What it shows is gathered here, as one
--- JSON text; how it is shown is page.html.
local bit = require "bit"
local by_time = require "perigee.compare.by_time"
local core = require "perigee.core.ffi"
local differences = require "perigee.record.differences"
local failure = require "perigee.base.failure"
local files = require "perigee.io.files"
local json = require "perigee.io.json"
local metrics = require "perigee.compare.metrics"

local M = {}

local MOST_POINTS = 1500 -- of a line: means of neighbours beyond that
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

--- RFC 4648.
local function base64(text)
  local parts = {}
  for k = 1, #text, 3 do
    local a, b, c = text:byte(k, k + 2)
    local value = a * 65536 + (b or 0) * 256 + (c or 0)
    for place = 3, 0, -1 do
      local digit = bit.band(bit.rshift(value, 6 * place), 63) + 1
      local empty = place == 1 and not b or place == 0 and not c
      parts[#parts + 1] = empty and "=" or ALPHABET:sub(digit, digit)
    end
  end
  return table.concat(parts)
end

--- Numbers that JSON has; others become null, which breaks a line.
local function plain(x) return x == x and math.abs(x) < math.huge and x or json.null end

--- A series as steps, values and the places before which it is broken, thinned to MOST_POINTS.
local function line_of(record, series)
  local count, steps, values, breaks = #series.steps, {}, {}, {}
  local share = math.max(1, math.ceil(count / MOST_POINTS))
  for first = 1, count, share do
    local last, sum = math.min(first + share - 1, count), 0
    for k = first, last do
      sum = sum + series.values[k]
      if record.breaks[series.name][series.steps[k]] then breaks[#breaks + 1] = #steps end
    end
    steps[#steps + 1], values[#values + 1] = series.steps[last], plain(sum / (last - first + 1))
  end
  return { steps = json.array(steps), values = json.array(values), breaks = json.array(breaks) }
end

--- Heat maps: what signals say by noise level.
local function maps_of(record)
  local list = json.array()
  for k, map in ipairs(by_time.maps(record)) do
    local rows = {}
    for r, row in ipairs(map.rows) do
      local line = line_of(record, record.series[row.series] or { name = row.series, steps = {}, values = {} })
      rows[r] = { label = row.label, steps = line.steps, values = line.values }
    end
    list[k] = { name = map.name, rows = rows }
  end
  return list
end

-- ---- a run ---------------------------------------------------------------------------------------------------------

--- Grids of samples, evenly chosen, as they are on disk.
local function samples_of(record, most)
  local found, list = {}, {}
  local folder = record.path .. "/samples"
  for _, name in ipairs(files.exists(folder) and files.list(folder) or {}) do
    local step = tonumber(name:match "^step%-(%d+)%.png$")
    if step then found[#found + 1] = { step = step, path = folder .. "/" .. name } end
  end
  for k = 1, math.min(most, #found) do
    local chosen = found[#found <= most and k or math.floor(1 + (k - 1) * (#found - 1) / math.max(most - 1, 1) + 0.5)]
    list[k] = { step = chosen.step, png = base64(files.read(chosen.path)) }
  end
  return list, #found
end

local function measured(record, stage)
  local to = stage.to or record.last_step
  local images, seconds = record:work(stage.from, to)
  local memory = record.series["signal.memory"] or record.series["signal.memory.peak"]
  local most
  for k, step in ipairs(memory and memory.steps or {}) do
    if step > stage.from and step <= to then most = math.max(most or 0, memory.values[k]) end
  end
  return { images_per_second = seconds > 0 and images / seconds or nil, memory = most }
end

--- What `perigee plan` says of a run's recipe on this machine, by stage; or why it says nothing.
local function planned(record)
  local fine, result = xpcall(function()
    local recipe = require("perigee.sampling.restore").recipe(record.path)
    local by_stage = {}
    for _, stage in ipairs(require("perigee.cost.price").recipe(recipe, { device = "cpu" })) do
      by_stage[stage.stage] = { images_per_second = stage.images_per_second, memory = stage.memory_total,
        device = stage.device }
    end
    return by_stage
  end, failure.handler)
  if fine then return result end
  return nil, tostring(result):match "[^\n]*"
end

local function run_of(record, how)
  local run = { label = record.label, path = record.path, last_step = record.last_step, ended = record.ended,
    recipe = record.config.name, stages = json.array(), changes = json.array(record.changes),
    maps = maps_of(record) }
  local plan, reason
  if how.plan then plan, reason = planned(record) end
  run.no_plan = reason
  for k, stage in ipairs(record.stages) do
    run.stages[k] = { name = stage.name, from = stage.from, to = stage.to, reason = stage.reason,
      measured = measured(record, stage), planned = plan and plan[stage.name] }
  end
  local samples, there = samples_of(record, how.samples)
  run.samples, run.samples_there = json.array(samples), there
  local images, seconds = record:work(0, record.last_step)
  run.images, run.seconds = images, seconds
  return run
end

--- Panels: a metric with its lines, of all runs. Bins and times of signals are heat maps instead.
local function panels_of(records)
  local list = {}
  for _, name in ipairs(metrics.names(records)) do
    if not metrics.of_bin(name) and not name:match "^stage%." and not name:match "^change%." then
      local metric, lines = metrics.find(records, name)[1], {}
      for k, series in ipairs(metric.series) do
        for r, record in ipairs(records) do
          if record.series[series] then
            local line = line_of(record, record.series[series])
            line.run, line.part = r - 1, metric.parts and metric.parts[k] or nil
            lines[#lines + 1] = line
          end
        end
      end
      if #lines > 0 then list[#list + 1] = { name = name, lines = lines } end
    end
  end
  return list
end

---@class perigee.PageOptions
---@field samples integer  grids of samples a run, at most
---@field plan boolean     what the recipe should cost, beside what was measured: loads the run's recipe

--- The page's text.
---@param records perigee.Record[]
---@param how perigee.PageOptions
---@return string
function M.html(records, how)
  local data, configs = { runs = json.array(), panels = json.array(panels_of(records)), settings = json.array() }, {}
  for k, record in ipairs(records) do
    data.runs[k], configs[k] = run_of(record, how), record.config
  end
  if #records > 1 then
    for k, row in ipairs(differences.rows(configs)) do
      data.settings[k] = { name = row.name, values = { unpack(row, 1, #records) } }
    end
  end
  data.configuration = configs[1]
  data.version = require("ffi").string(core.C.pg_version())
  local text = json.encode(data):gsub("[<>&]", function(c) return ("\\u%04x"):format(c:byte()) end)
  local page = files.read(core.home .. "/lua/perigee/compare/page.html")
  local before, after = page:match "^(.*)/%*DATA%*/(.*)$"
  return before .. text .. after
end

return M
