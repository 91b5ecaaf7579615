--- Runs' metrics as a figure: a panel a metric, a colour a label. Runs that share a label (seeds) are drawn as their
--- mean, in a band from the least to the greatest.
local figure = require "perigee.plot.figure"
local labels = require "perigee.compare.labels"

local M = {}

local DASHES = { {}, { 7, 3 }, { 2, 2.5 }, { 8, 3, 2, 3 } } -- elements of a list, and runs after the eighth
local GREY = "#595959" -- of what belongs to no run
local CHANGE = { 1.5, 3 } -- dashes of the mark where a setting was changed
local TOGETHER = 8   -- lines in a panel; a list with more gets a panel an element
local DOTS = 24      -- a line of fewer points shows them

--- The mean of the `count` values (the next odd number) around each: of fewer at the beginning, as many on either
--- side, so that a slope is not shifted; none at the end, where those after it are missing. Where there are fewer
--- than twice as many values, half of them.
---@param values number[]
---@param count integer
---@param starts? integer[]   rising places at which values of another kind begin: they are not mixed
---@return table<integer, number>   by place
function M.smooth(values, count, starts)
  local smoothed, first = {}, 1
  local ends = { unpack(starts or {}) }
  ends[#ends + 1] = #values + 1
  for _, after in ipairs(ends) do
    local most = math.floor(math.min(count, (after - first) / 2) / 2)
    for k = first, after - 1 - most do
      local half, sum = math.min(most, k - first), 0
      for i = k - half, k + half do sum = sum + values[i] end
      smoothed[k] = sum / (2 * half + 1)
    end
    first = math.max(first, after)
  end
  return smoothed
end

--- Only what each few steps logs is smoothed: losses and the rest of `step` events.
local function is_dense(name) return name:match "^loss%." or name:match "^step%." end

--- The runs of each label, with its colour and dashes.
local function grouped(records)
  local groups = labels.group(records)
  for k, group in ipairs(groups) do
    group.colour = figure.palette[(k - 1) % #figure.palette + 1]
    group.dash = DASHES[math.floor((k - 1) / #figure.palette) % #DASHES + 1]
  end
  return groups
end

--- Where a series' values belong to another stage than those before. A stage that ends at a step still logged that
--- step.
local function stage_starts(record, series)
  local starts, k = {}, 1
  for s = 2, #record.stages do
    while series.steps[k] and series.steps[k] <= record.stages[s].from do k = k + 1 end
    if series.steps[k] then starts[#starts + 1] = k end
  end
  return starts
end

--- A run's series within the steps: { steps, ys }, smoothed, and the same of the values as they are.
local function points(record, name, how)
  local series, kept, raw = record.series[name], { steps = {}, ys = {} }, { steps = {}, ys = {} }
  if not series then return kept, raw end
  local smoothed = series.values
  if how.smooth > 1 and is_dense(name) then
    smoothed = M.smooth(series.values, how.smooth, stage_starts(record, series))
  end
  for k, step in ipairs(series.steps) do
    if step >= how.from and step <= how.to then
      raw.steps[#raw.steps + 1], raw.ys[#raw.ys + 1] = step, series.values[k]
      if smoothed[k] then kept.steps[#kept.steps + 1], kept.ys[#kept.ys + 1] = step, smoothed[k] end
    end
  end
  return kept, raw
end

--- Mean, least and greatest of several runs at the steps that all of them logged.
local function spread(runs)
  local at, steps = {}, {}
  for _, run in ipairs(runs) do
    for k, step in ipairs(run.steps) do
      local here = at[step]
      if not here then
        here = { sum = 0, count = 0, low = math.huge, high = -math.huge }
        at[step], steps[#steps + 1] = here, step
      end
      here.sum, here.count = here.sum + run.ys[k], here.count + 1
      here.low, here.high = math.min(here.low, run.ys[k]), math.max(here.high, run.ys[k])
    end
  end
  table.sort(steps)
  local result = { steps = {}, ys = {}, lows = {}, highs = {} }
  for _, step in ipairs(steps) do
    local here, n = at[step], #result.steps + 1
    if here.count == #runs then
      result.steps[n], result.ys[n], result.lows[n], result.highs[n] = step, here.sum / here.count, here.low, here.high
    end
  end
  return result
end

--- The x coordinate of a step, by the mean of some runs.
local function axis_of(records, unit)
  local axes = {}
  for k, record in ipairs(records) do axes[k] = record:axis(unit) end
  return function(step)
    local sum = 0
    for _, axis in ipairs(axes) do sum = sum + axis(step) end
    return sum / #axes
  end
end

local function mapped(steps, axis)
  local xs = {}
  for k, step in ipairs(steps) do xs[k] = axis(step) end
  return xs
end

--- A line's parts: it is not drawn where one of the runs has a gap between two of its steps.
local function segments(line, records, name)
  local parts, part, gaps = {}, nil, {}
  for _, record in ipairs(records) do
    for step in pairs(record.breaks[name]) do gaps[#gaps + 1] = step end
  end
  table.sort(gaps)
  local g = 1
  for k, step in ipairs(line.steps) do
    local broken = false
    while gaps[g] and gaps[g] <= step do
      broken, g = broken or k > 1 and gaps[g] > line.steps[k - 1], g + 1
    end
    if broken or not part then
      part = {}
      for key in pairs(line) do part[key] = {} end
      parts[#parts + 1] = part
    end
    for key, values in pairs(line) do part[key][#part[key] + 1] = values[k] end
  end
  return parts
end

--- Adds a group's line for one series to a panel.
local function add_lines(panel, group, name, stroke, how)
  local runs, measured, raw = {}, {}, nil
  for _, record in ipairs(group) do
    local run, unsmoothed = points(record, name, how)
    if #run.steps > 0 then runs[#runs + 1], measured[#measured + 1], raw = run, record, unsmoothed end
  end
  if #runs == 0 then return end
  local line, axis = runs[1], axis_of(measured, how.x)
  if #runs > 1 then line = spread(runs)
  elseif how.smooth > 1 and is_dense(name) then
    for _, part in ipairs(segments(raw, measured, name)) do
      panel.lines[#panel.lines + 1] = { xs = mapped(part.steps, axis), ys = part.ys, behind = true,
                                        stroke = { colour = stroke.colour, alpha = 0.25, width = 1 } }
    end
  end
  for _, part in ipairs(segments(line, measured, name)) do
    local xs = mapped(part.steps, axis)
    if part.lows then
      panel.bands[#panel.bands + 1] = { xs = xs, lows = part.lows, highs = part.highs, colour = stroke.colour }
    end
    panel.lines[#panel.lines + 1] = { xs = xs, ys = part.ys, stroke = stroke, dots = #line.steps <= DOTS }
  end
end

--- Orders lines so that one that hides others shows where it differs: raw ones at the back, long ones before short
--- ones, and of equally long ones the first run's in front. Runs of one seed are the same line until one changes stage.
local function layer(lines)
  for k, line in ipairs(lines) do line.place = k end
  table.sort(lines, function(a, b)
    if a.behind ~= b.behind then return a.behind or false end
    if a.xs[#a.xs] ~= b.xs[#b.xs] then return a.xs[#a.xs] > b.xs[#b.xs] end
    return a.place > b.place
  end)
  return lines
end

--- From the first step asked for to a little beyond the last thing to be seen.
local function x_range(panel, low)
  local high = low
  for _, line in ipairs(panel.lines) do high = math.max(high, line.xs[#line.xs]) end
  for _, mark in ipairs(panel.marks) do high = math.max(high, mark.x) end
  if high == low then return nil end
  return { low, high + 0.015 * (high - low) }
end

local function all_positive(panel)
  for _, line in ipairs(panel.lines) do
    for _, y in ipairs(line.ys) do
      if y <= 0 then return false end
    end
  end
  return true
end

--- Where stages give way to others, and where settings were changed, in each run's colour.
local function marks_of(groups, how)
  local marks = {}
  for _, group in ipairs(groups) do
    for _, record in ipairs(group) do
      local axis = record:axis(how.x)
      for k = 2, #record.stages do
        local step = record.stages[k].from
        if step >= how.from and step <= how.to then marks[#marks + 1] = { x = axis(step), colour = group.colour } end
      end
      for _, change in ipairs(record.changes) do
        if change.step >= how.from and change.step <= how.to then
          marks[#marks + 1] = { x = axis(change.step), colour = group.colour, dash = CHANGE }
        end
      end
    end
  end
  return marks
end

local X_LABELS = { step = "step", images = "images", seconds = "seconds of training" }

--- A panel: series by name, one an element where `parts` names them.
local function panel_of(title, series, parts, groups, marks, how)
  local panel = { title = title, x_label = X_LABELS[how.x], lines = {}, bands = {}, marks = marks, legend = {} }
  local alone = #groups == 1 -- then colours tell elements apart, else dashes do
  for k, name in ipairs(series) do
    local colour = parts and alone and figure.palette[k] or nil
    local dash = parts and (alone and {} or DASHES[k]) or nil
    for _, group in ipairs(groups) do
      add_lines(panel, group, name, { colour = colour or group.colour, width = 1.8, dash = dash or group.dash }, how)
    end
    if parts then
      panel.legend[k] = { label = parts[k], stroke = { colour = colour or GREY, width = 1.8, dash = dash } }
    end
  end
  layer(panel.lines)
  panel.x_range = x_range(panel, groups[1][1]:axis(how.x)(how.from))
  panel.log = how.log and all_positive(panel)
  return panel
end

--- The panels of a metric: one, or one an element where a single one would hold too many lines.
local function panels_of(metric, groups, marks, how)
  local parts = metric.parts
  if not parts or #parts * #groups <= TOGETHER and #parts <= (#groups == 1 and #figure.palette or #DASHES) then
    return { panel_of(metric.name, metric.series, parts, groups, marks, how) }
  end
  local panels = {}
  for k, name in ipairs(metric.series) do
    panels[k] = panel_of(("%s, %s"):format(metric.name, parts[k]), { name }, nil, groups, marks, how)
  end
  return panels
end

---@class perigee.CurvesOptions
---@field from number           first step
---@field to number             last step
---@field smooth integer        values that the moving mean spans; 1: none
---@field x "step"|"images"|"seconds"
---@field log boolean           logarithmic y axes
---@field title? string
---@field width? integer
---@field scale? number
---@field columns? integer

--- The figure of some runs' metrics, for figure.draw. Also the titles of panels that stay linear against `log`, for
--- values not above 0.
---@param records perigee.Record[]
---@param metrics perigee.Metric[]
---@param how perigee.CurvesOptions
---@return perigee.Figure, string[] linear
function M.figure(records, metrics, how)
  local groups, panels, linear, legend = grouped(records), {}, {}, {}
  local marks = marks_of(groups, how)
  for _, metric in ipairs(metrics) do
    for _, panel in ipairs(panels_of(metric, groups, marks, how)) do
      panels[#panels + 1] = panel
      if how.log and not panel.log then linear[#linear + 1] = panel.title end
    end
  end
  for k, group in ipairs(groups) do
    legend[k] = { label = group.label .. (#group > 1 and (" (%d runs)"):format(#group) or ""),
                  stroke = { colour = group.colour, width = 2.4, dash = group.dash } }
  end
  local ends, changes = false, false
  for _, mark in ipairs(marks) do ends, changes = ends or not mark.dash, changes or mark.dash ~= nil end
  for _, key in ipairs { ends and { "stage ends", { 6, 4 } } or {}, changes and { "setting changed", CHANGE } or {} } do
    if key[1] then
      legend[#legend + 1] = { label = key[1], upright = true, stroke = { colour = GREY, width = 1.25, dash = key[2] } }
    end
  end
  return { title = how.title, width = how.width, scale = how.scale, columns = how.columns, legend = legend,
           panels = panels }, linear
end

return M
