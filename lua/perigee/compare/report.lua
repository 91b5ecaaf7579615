--- The report of `perigee compare`: how the configurations differ, how the runs' stages went, and where their curves
--- end.
local differences = require "perigee.record.differences"
local labels = require "perigee.compare.labels"
local metrics = require "perigee.compare.metrics"
local text_table = require "perigee.compare.table"

local M = {}

-- events whose numbers are told elsewhere, or mean little as last values
local PLAIN = { step = true, stage = true, change = true }

local function number(x)
  return (x % 1 == 0 and math.abs(x) < 1e9 and "%d" or "%.4g"):format(x)
end

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
local function stage_lines(out, record)
  local state = record.ended and ("ended at step %d"):format(record.last_step)
    or ("no end logged, at step %d"):format(record.last_step)
  local known = record.path == record.label or record.path:match "[^/]+$" == record.label
  local folder = known and "" or (" (%s)"):format(record.path)
  out[#out + 1] = ("%s%s: %s"):format(record.label, folder,
    table.concat({ state, rate(record, 0, record.last_step) }, ", "))
  for _, stage in ipairs(record.stages) do
    local reason = stage.to and (stage.reason or "") or "not ended"
    local to = stage.to or record.last_step
    out[#out + 1] = table.concat({ ("  stage %s, steps %d to %d: %s"):format(stage.name, stage.from, to, reason),
                                   rate(record, stage.from, to) }, ", ")
  end
end

--- A run's changes to one setting: "350: 0.001 to 0.0005 (by hand), 700: ...".
local function change_text(record, name)
  local texts = {}
  for _, change in ipairs(record.changes) do
    if change.name == name then
      texts[#texts + 1] = ("%d: %s (%s)"):format(change.step, change.after == "" and "done"
        or ("%s to %s"):format(change.before, change.after), change.how)
    end
  end
  return texts[1] and table.concat(texts, ", ") or nil
end

--- Rows of the settings that changed while the runs went on, with a column a label: its runs' changes, each once.
local function change_rows(records, groups)
  local rows, known = {}, {}
  for _, record in ipairs(records) do
    for _, change in ipairs(record.changes) do
      if not known[change.name] then rows[#rows + 1] = { name = change.name } end
      known[change.name] = true
    end
  end
  for _, row in ipairs(rows) do
    for g, group in ipairs(groups) do
      local texts, seen = {}, {}
      for _, record in ipairs(group) do
        local text = change_text(record, row.name)
        if text and not seen[text] then texts[#texts + 1], seen[text] = text, true end
      end
      row[g] = texts[1] and table.concat(texts, "; ") or "-"
    end
  end
  return rows
end

--- The end of a series in a label's runs: its value, or their mean and from the least to the greatest. "@350"
--- where the last of it was logged before the runs' end.
local function ending_text(records, name, count, to)
  local sum, low, high, values, steps, early = 0, math.huge, -math.huge, 0, {}, false
  for _, record in ipairs(records) do
    local value, step
    if record.series[name] then value, step = ending(record.series[name], count, to) end
    if value then
      sum, low, high, values = sum + value, math.min(low, value), math.max(high, value), values + 1
      steps[#steps + 1] = step
      early = early or step < math.min(record.last_step, to)
    end
  end
  if values == 0 then return nil end
  local text = number(sum / values)
  if high > low then text = ("%s (%s to %s)"):format(text, number(low), number(high)) end
  if not early then return text end
  table.sort(steps)
  local first, last = steps[1], steps[#steps]
  return text .. (first == last and (" @%d"):format(last) or (" @%d to %d"):format(first, last))
end

--- A row of values at the end, one a label; nil where no run has any.
local function ending_row(groups, name, title, count, to)
  local row, any = { name = title }, false
  for k, group in ipairs(groups) do
    local text = ending_text(group, name, count, to)
    row[k], any = text or "-", any or text ~= nil
  end
  return any and row or nil
end

local function heading(out, text)
  if #out > 0 then out[#out + 1] = "" end
  out[#out + 1] = text
end

--- Rows of differing settings, with a column a label: the settings of its runs, each once.
local function difference_rows(records, groups)
  local configs, place = {}, {}
  for k, record in ipairs(records) do configs[k], place[record] = record.config, k end
  local rows = differences.rows(configs)
  for r, row in ipairs(rows) do
    local merged = { name = row.name }
    for g, group in ipairs(groups) do
      local texts, seen = {}, {}
      for _, record in ipairs(group) do
        local text = row[place[record]]
        if not seen[text] then texts[#texts + 1] = text end
        seen[text] = true
      end
      merged[g] = table.concat(texts, ", ")
    end
    rows[r] = merged
  end
  return rows
end

---@param records perigee.Record[]
---@param how { last: integer, to: number, width: integer }   values averaged for a loss, last step, characters a line
---@return string[] lines
function M.lines(records, how)
  local out, heads, groups = {}, {}, labels.group(records)
  for k, group in ipairs(groups) do heads[k] = group.label end
  local function add_table(title, rows)
    if #rows == 0 then return end
    heading(out, title)
    for _, line in ipairs(text_table.lines(heads, rows, how.width)) do out[#out + 1] = line end
  end
  if #records > 1 then
    local rows = difference_rows(records, groups)
    if #rows == 0 then heading(out, "The configurations are the same.") end
    add_table("Differences in the configurations", rows)
  end
  heading(out, "Stages")
  for _, record in ipairs(records) do stage_lines(out, record) end
  add_table("Changed on the way, after these steps", change_rows(records, groups))

  local losses, others = {}, {}
  for _, name in ipairs(metrics.names(records)) do
    local metric = metrics.find(records, name)[1]
    for k, series in ipairs(metric.series) do
      if name:match "^loss%." or name == "step.gradient_norm" then
        losses[#losses + 1] = ending_row(groups, series, series, how.last, how.to)
      elseif not PLAIN[name:match "^[^.]*"] and (metrics.of_bin(name) or "mean") == "mean" then
        local title = metric.parts and ("%s, %s"):format(name, metric.parts[k]) or name
        others[#others + 1] = ending_row(groups, series, title, 1, how.to)
      end
    end
  end
  add_table(("At the end, mean of the last %d logged"):format(how.last), losses)
  add_table("Last values", others)
  return out
end

return M
