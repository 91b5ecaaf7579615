--- perigee compare: runs side by side, in tables and in figures.
local printable = require "perigee.base.printable"

local M = {
  summary = "print and plot runs side by side",
  usage = "[LABEL=]RUN... [options]",
  description = "Prints what differs in the runs' configurations, how their stages went and where their curves end;\n"
    .. "with --out, plots metrics, a panel each. A run may be going still. Runs given the same label\n"
    .. "(seeds) are plotted as their mean, in a band from the least to the greatest.",
  options = {
    { name = "metric", type = "list", value = "NAME[,NAME]",
      help = "what to plot, or all below a name, such as loss; may be repeated (default: losses and signals)" },
    { name = "list", type = "boolean", default = false, help = "list the metrics that the runs have" },
    { name = "out", type = "string", value = "FILE.png", help = "plot into this file" },
    { name = "x", choices = { "step", "images", "seconds" }, default = "step", help = "what the x axis counts" },
    { name = "steps", type = "string", value = "A:B", help = "only these steps; either may be left out" },
    { name = "smooth", type = "integer", default = 1, min = 1,
      help = "moving mean of losses and other values of `step` events, over N logged ones" },
    { name = "log", type = "boolean", default = false, help = "logarithmic y axes" },
    { name = "last", type = "integer", default = 10, min = 1, help = "logged values in a loss's mean at the end" },
    { name = "title", type = "string", help = "the figure's title" },
    { name = "columns", type = "integer", min = 1, max = 4, help = "columns of panels (default: 2; 1 for one panel)" },
    { name = "width", type = "integer", default = 900, min = 300, max = 4000, help = "the figure's width in points" },
    { name = "scale", type = "number", default = 2, min = 0.5, max = 4, help = "pixels a point" },
  },
}

--- "A:B", ":B" or "A:" as two numbers.
local function steps_of(text)
  if not text then return 0, math.huge end
  local low, high = text:match "^(%d*):(%d*)$"
  local from, to = tonumber(low) or 0, tonumber(high) or math.huge
  if not low or from > to then error(("--steps %s: expected A:B, such as 100:2000"):format(text), 0) end
  return from, to
end

local function read_runs(words)
  return require("perigee.compare.labels").read(words, require("perigee.compare.record").read)
end

local function split(words)
  local names = {}
  for _, word in ipairs(words) do
    for name in word:gmatch "[^,]+" do names[#names + 1] = name:match "^%s*(.-)%s*$" end -- names may have spaces
  end
  return names
end

local function print_metrics(records)
  local metrics = require "perigee.compare.metrics"
  local heads, rows = {}, {}
  for k, record in ipairs(records) do heads[k] = record.label end
  for r, name in ipairs(metrics.names(records)) do
    local metric = metrics.find(records, name)[1]
    rows[r] = { name = metric.parts and ("%s[1..%d]"):format(name, #metric.parts) or name }
    for k, record in ipairs(records) do
      local series = record.series[metric.series[1]]
      rows[r][k] = series and tostring(#series.steps) or "-"
    end
  end
  print "Metrics, and how often each run has them"
  printable.print(table.concat(require("perigee.compare.table").lines(heads, rows, 120), "\n"))
end

--- Where the runs stand: "2000", or "2000, 3000".
local function last_steps(records)
  local texts = {}
  for k, record in ipairs(records) do texts[k] = tostring(record.last_step) end
  return table.concat(texts, ", ")
end

--- The figure, and the titles of its panels that stay linear. An error where no metric has a value within the steps.
local function figure_of(records, metrics, options, from, to)
  if #metrics == 0 then error("the runs have no losses or signals to plot yet", 0) end
  local figure, linear = require("perigee.compare.curves").figure(records, metrics, {
    from = from, to = to, smooth = options.smooth, x = options.x, log = options.log, title = options.title,
    width = options.width, scale = options.scale, columns = options.columns,
  })
  local lines = 0
  for _, panel in ipairs(figure.panels) do lines = lines + #panel.lines end
  if lines == 0 then
    error(("--steps %s: no run has any of these metrics there; the runs' last steps are %s"):format(
      options.steps or ":", last_steps(records)), 0)
  end
  return figure, linear
end

local function draw(figure, linear, path)
  local files = require "perigee.io.files"
  local picture = require("perigee.plot.figure").draw(figure)
  files.make_folder(path:match "^(.*)/[^/]+$" or ".")
  require("perigee.io.png").save(path, picture)
  for _, title in ipairs(linear) do
    printable.print(("note: %s has values that are not above 0: its axis is linear"):format(title))
  end
  print(("%d panel%s: %s"):format(#figure.panels, #figure.panels == 1 and "" or "s", path))
end

function M.run(options)
  if #options == 0 then error("perigee compare needs runs' folders: perigee compare " .. M.usage, 0) end
  if options.out and not options.out:match "%.png$" then
    error(("--out %s: expected FILE.png"):format(options.out), 0)
  end
  local from, to = steps_of(options.steps)
  local records = read_runs { unpack(options) }
  if options.list then
    print_metrics(records)
    return 0
  end
  local metrics = require("perigee.compare.metrics").select(records, split(options.metric))
  if #options.metric > 0 and not options.out then
    error("--metric says what --out FILE.png plots; --out is missing", 0)
  end
  local figure, linear
  if options.out then figure, linear = figure_of(records, metrics, options, from, to) end
  local lines = require("perigee.compare.report").lines(records, { last = options.last, to = to, width = 120 })
  printable.print(table.concat(lines, "\n"))
  if options.out then
    print ""
    draw(figure, linear, options.out)
  end
  return 0
end

return M
