--- What `perigee compare` prints: how the configurations differ, how the runs' stages went, and where their curves end.
local differences = require "perigee.compare.differences"
local metrics = require "perigee.compare.metrics"
local text_table = require "perigee.compare.table"

local M = {}

-- events whose numbers are told elsewhere, or mean little as last values
local PLAIN = { step = true, stage = true, change = true }

local function number(x) return ("%.5g"):format(x) end

--- The mean of the last `count` values up to a step, and the step of the last one; nil where there are none.
local function ending(series, count, to)
  local sum, used, step = 0, 0, nil
  for k = #series.steps, 1, -1 do
    if series.steps[k] <= to and used < count then
      step = step or series.steps[k]
      sum, used = sum + series.values[k], used + 1
    end
  end
  return used > 0 and sum / used or nil, step
end

local function rate(record, from, to)
  local images, seconds = record:work(from, to)
  return seconds > 0 and ("%.4g images/s"):format(images / seconds) or nil
end

--- A run's stages: the steps they took, why they ended, how fast they were.
local function stage_lines(out, record, head)
  local state = record.ended and ("ended at step %d"):format(record.last_step)
    or ("no end logged, at step %d"):format(record.last_step)
  local folder = record.path ~= head and record.path:match "[^/]+$" ~= head and (" (%s)"):format(record.path) or ""
  out[#out + 1] = ("%s%s: %s"):format(head, folder, table.concat({ state, rate(record, 0, record.last_step) }, ", "))
  for _, stage in ipairs(record.stages) do
    local reason = stage.to and (stage.reason or "") or "not ended"
    local to = stage.to or record.last_step
    out[#out + 1] = table.concat({ ("  stage %s, steps %d to %d: %s"):format(stage.name, stage.from, to, reason),
                                   rate(record, stage.from, to) }, ", ")
  end
end

--- A row of values at the end; "@350" where a run logged the last of them before its end.
local function ending_row(records, name, title, count, to)
  local row, any = { name = title }, false
  for k, record in ipairs(records) do
    local value, step
    if record.series[name] then value, step = ending(record.series[name], count, to) end
    any = any or value ~= nil
    local whole = step and step >= math.min(record.last_step, to)
    row[k] = value and number(value) .. (whole and "" or " @" .. step) or "-"
  end
  return any and row or nil
end

local function heading(out, text)
  if #out > 0 then out[#out + 1] = "" end
  out[#out + 1] = text
end

--- Column heads: the labels, numbered where several runs share one.
local function heads_of(records)
  local count, number_of, heads = {}, {}, {}
  for _, record in ipairs(records) do count[record.label] = (count[record.label] or 0) + 1 end
  for k, record in ipairs(records) do
    local label = record.label
    number_of[label] = (number_of[label] or 0) + 1
    heads[k] = count[label] > 1 and ("%s %d"):format(label, number_of[label]) or label
  end
  return heads
end

---@param records perigee.Record[]
---@param how { last: integer, to: number, width: integer }   values averaged for a loss, last step, characters a line
---@return string[] lines
function M.lines(records, how)
  local out, heads, configs = {}, heads_of(records), {}
  local function add_table(title, rows)
    if #rows == 0 then return end
    heading(out, title)
    for _, line in ipairs(text_table.lines(heads, rows, how.width)) do out[#out + 1] = line end
  end
  for k, record in ipairs(records) do configs[k] = record.config end
  if #records > 1 then
    local rows = differences.rows(configs)
    if #rows == 0 then heading(out, "The configurations are the same.") end
    add_table("What differs in the configurations", rows)
  end
  heading(out, "Stages")
  for k, record in ipairs(records) do stage_lines(out, record, heads[k]) end

  local losses, others = {}, {}
  for _, name in ipairs(metrics.names(records)) do
    local metric = metrics.find(records, name)[1]
    for k, series in ipairs(metric.series) do
      if name:match "^loss%." or name == "step.gradient_norm" then
        losses[#losses + 1] = ending_row(records, series, series, how.last, how.to)
      elseif not PLAIN[name:match "^[^.]*"] then
        local title = metric.parts and ("%s, %s"):format(name, metric.parts[k]) or name
        others[#others + 1] = ending_row(records, series, title, 1, how.to)
      end
    end
  end
  add_table(("At the end, mean of the last %d logged"):format(how.last), losses)
  add_table("Last values", others)
  return out
end

return M
