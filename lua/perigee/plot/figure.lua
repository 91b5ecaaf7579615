--- A figure: panels in columns under one legend, each with axes, ticks, lines, bands and vertical marks.
---
---   figure.draw { width = 900, legend = { { label = "haste", stroke = {...} } }, panels = { { title = "loss.denoise",
---     x_label = "step", lines = { { xs = {...}, ys = {...}, stroke = { colour = "#0072B2" } } } } } }
---
--- It knows nothing of runs.
local cairo = require "perigee.plot.cairo"
local ticks = require "perigee.plot.ticks"

local M = {}

--- Eight colours that people who see colours differently can tell apart, on white (Okabe and Ito, "Color Universal
--- Design", 2008); grey in place of their yellow, which is too pale for a line.
M.palette = { "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999" }

local INK, GREY, PALE = "#262626", "#595959", "#E6E6E6"
local TITLE = { size = 16, bold = true, colour = INK }
local PANEL_TITLE = { size = 13, bold = true, colour = INK }
local KEY = { size = 12, colour = INK }
local TICK = { size = 11, colour = GREY }
local MARGIN, GAP, KEY_LINE, KEY_ROW = 14, 22, 26, 19

---@class perigee.PlotLine
---@field xs number[]
---@field ys number[]
---@field stroke perigee.Stroke
---@field dots? boolean         a disc at each point

---@class perigee.PlotBand
---@field xs number[]
---@field lows number[]
---@field highs number[]
---@field colour string

---@class perigee.PlotKey
---@field label string
---@field stroke perigee.Stroke
---@field upright? boolean      a vertical mark's sample

---@class perigee.Panel
---@field title string
---@field x_label string
---@field lines perigee.PlotLine[]
---@field bands? perigee.PlotBand[]
---@field marks? { x: number, colour: string, dash?: number[] }[]  without dashes of their own: long ones
---@field legend? perigee.PlotKey[]
---@field log? boolean          a logarithmic y axis; all ys are above 0
---@field x_range? number[]     low and high; else what the lines need

---@class perigee.Figure
---@field panels perigee.Panel[]
---@field legend? perigee.PlotKey[]
---@field title? string
---@field width? integer        points
---@field scale? number         pixels a point
---@field columns? integer

-- ranges --------------------------------------------------------------------------------------------------------

local function extend(range, values)
  for _, value in ipairs(values) do
    range[1], range[2] = math.min(range[1], value), math.max(range[2], value)
  end
end

--- Low and high with some air, never equal.
local function padded(range, share)
  local low, high = range[1], range[2]
  if low > high then return { 0, 1 } end
  local air = (high - low) * share
  if high - low <= 1e-12 * math.max(math.abs(low), math.abs(high)) then air = low == 0 and 1 or math.abs(low) * 0.05 end
  return { low - air, high + air }
end

local function x_range(panel)
  if panel.x_range then return panel.x_range end
  local range = { math.huge, -math.huge }
  for _, line in ipairs(panel.lines) do extend(range, line.xs) end
  for _, mark in ipairs(panel.marks or {}) do extend(range, { mark.x }) end
  if range[1] == range[2] then return padded(range, 0) end
  return range[1] > range[2] and { 0, 1 } or range
end

local function y_range(panel)
  local range = { math.huge, -math.huge }
  for _, line in ipairs(panel.lines) do extend(range, line.ys) end
  for _, band in ipairs(panel.bands or {}) do
    extend(range, band.lows)
    extend(range, band.highs)
  end
  if not panel.log or range[1] > range[2] then return padded(range, 0.05) end
  local logs = padded({ math.log10(range[1]), math.log10(range[2]) }, 0.05)
  return { 10 ^ logs[1], 10 ^ logs[2] }
end

-- legends -------------------------------------------------------------------------------------------------------

--- Keys side by side in rows of a width: each gets `column` and `row`. Returns the number of rows.
local function flow(canvas, keys, width)
  local x, row = 0, 1
  for _, key in ipairs(keys) do
    local wide = KEY_LINE + 6 + canvas:text_width(key.label, KEY) + 16
    if x > 0 and x + wide - 16 > width then x, row = 0, row + 1 end
    key.column, key.row = x, row
    x = x + wide
  end
  return #keys > 0 and row or 0
end

local function draw_keys(canvas, keys, left, top)
  for _, key in ipairs(keys) do
    local x, y = left + key.column, top + (key.row - 1) * KEY_ROW + KEY_ROW / 2
    if key.upright then canvas:line({ x + KEY_LINE / 2, x + KEY_LINE / 2 }, { y - 7, y + 7 }, key.stroke)
    else canvas:line({ x, x + KEY_LINE }, { y, y }, key.stroke) end
    canvas:text(x + KEY_LINE + 6, y + 4, key.label, KEY)
  end
end

-- a panel -------------------------------------------------------------------------------------------------------

---@class perigee.Frame   where a panel's axes lie, in points, and what they span
---@field left number
---@field right number
---@field top number
---@field bottom number
---@field x number[]      low and high
---@field y number[]
---@field log boolean
local Frame = {}
Frame.__index = Frame

function Frame:across(x) return self.left + (x - self.x[1]) / (self.x[2] - self.x[1]) * (self.right - self.left) end

function Frame:up(y)
  local low, high = self.y[1], self.y[2]
  if self.log then y, low, high = math.log(y), math.log(low), math.log(high) end
  return self.bottom - (y - low) / (high - low) * (self.bottom - self.top)
end

local function each(values, map)
  local mapped = {}
  for k, value in ipairs(values) do mapped[k] = map(value) end
  return mapped
end

local function draw_axes(canvas, panel, frame)
  local grid, axis = { colour = PALE, width = 1 }, { colour = GREY, width = 1 }
  local function label(x, y, text, align)
    canvas:text(x, y, text, { size = TICK.size, colour = TICK.colour, align = align })
  end
  for k, value in ipairs(frame.y_ticks.values) do
    local y = frame:up(value)
    canvas:line({ frame.left, frame.right }, { y, y }, grid)
    canvas:line({ frame.left - 4, frame.left }, { y, y }, axis)
    label(frame.left - 7, y + 4, frame.y_ticks.texts[k], "right")
  end
  for k, value in ipairs(frame.x_ticks.values) do
    local x = frame:across(value)
    canvas:line({ x, x }, { frame.top, frame.bottom }, grid)
    canvas:line({ x, x }, { frame.bottom, frame.bottom + 4 }, axis)
    label(x, frame.bottom + 17, frame.x_ticks.texts[k], "centre")
  end
  canvas:line({ frame.left, frame.left, frame.right }, { frame.top, frame.bottom, frame.bottom }, axis)
  canvas:text((frame.left + frame.right) / 2, frame.bottom + 34, panel.x_label,
    { size = KEY.size, colour = KEY.colour, align = "centre" })
end

--- Adds a mark's colour to those at its place.
local function add_mark(places, x, colour)
  local place
  for _, other in ipairs(places) do
    if math.abs(other.x - x) < 1.5 then place = other end
  end
  if not place then
    place = { x = x }
    places[#places + 1] = place
  end
  local known
  for _, other in ipairs(place) do known = known or other == colour end
  if not known then place[#place + 1] = colour end
end

--- Vertical dashes; those that would hide one another share a line, each its own dashes.
local function draw_marks(canvas, panel, frame)
  local places = {}
  for _, mark in ipairs(panel.marks or {}) do
    local x = frame:across(mark.x)
    if mark.dash then
      canvas:line({ x, x }, { frame.top, frame.bottom }, { colour = mark.colour, width = 1.25, dash = mark.dash })
    else add_mark(places, x, mark.colour) end
  end
  local on = 6
  for _, place in ipairs(places) do
    local dash = { on, #place == 1 and 4 or on * (#place - 1) }
    for k, colour in ipairs(place) do
      canvas:line({ place.x, place.x }, { frame.top, frame.bottom },
        { colour = colour, width = 1.25, dash = dash, offset = -on * (k - 1) })
    end
  end
end

local function reversed(list)
  local result = {}
  for k = #list, 1, -1 do result[#result + 1] = list[k] end
  return result
end

local function draw_data(canvas, panel, frame)
  local function across(x) return frame:across(x) end
  local function up(y) return frame:up(y) end
  for _, band in ipairs(panel.bands or {}) do
    local xs, ys = each(band.xs, across), each(band.highs, up)
    for _, x in ipairs(reversed(xs)) do xs[#xs + 1] = x end
    for _, y in ipairs(reversed(each(band.lows, up))) do ys[#ys + 1] = y end
    canvas:area(xs, ys, band.colour, 0.18)
  end
  draw_marks(canvas, panel, frame)
  for _, line in ipairs(panel.lines) do
    local xs, ys = each(line.xs, across), each(line.ys, up)
    canvas:line(xs, ys, line.stroke)
    if line.dots or #xs == 1 then
      for k = 1, #xs do canvas:disc(xs[k], ys[k], 2.6, line.stroke.colour, line.stroke.alpha) end
    end
  end
end

-- the figure ----------------------------------------------------------------------------------------------------

--- Rows, widths and heights: a frame for each panel, and the figure's height.
local function arrange(canvas, figure, columns, top)
  local width = (figure.width - 2 * MARGIN - (columns - 1) * GAP) / columns
  local height = columns == 1 and 300 or 210
  local frames, y = {}, top
  for first = 1, #figure.panels, columns do
    local key_rows = 0
    for k = first, math.min(first + columns - 1, #figure.panels) do
      key_rows = math.max(key_rows, flow(canvas, figure.panels[k].legend or {}, width))
    end
    local plot_top = y + 22 + key_rows * KEY_ROW + 4
    for k = first, math.min(first + columns - 1, #figure.panels) do
      local panel, left = figure.panels[k], MARGIN + (k - first) * (width + GAP)
      local frame = setmetatable({
        outer = left, head = y, right = left + width, top = plot_top, bottom = plot_top + height,
        x = x_range(panel), y = y_range(panel), log = panel.log or false,
      }, Frame)
      frame.y_ticks = (frame.log and ticks.logarithmic or ticks.linear)(frame.y[1], frame.y[2], 6)
      frame.x_ticks = ticks.linear(frame.x[1], frame.x[2], math.max(2, math.floor(width / 75)))
      frames[k] = frame
    end
    y = plot_top + height + 40 + 8
  end
  for column = 1, columns do -- axes below one another begin at one place
    local widest = 0
    for k = column, #frames, columns do
      for _, text in ipairs(frames[k].y_ticks.texts) do widest = math.max(widest, canvas:text_width(text, TICK)) end
    end
    for k = column, #frames, columns do frames[k].left = frames[k].outer + widest + 10 end
  end
  return frames, y
end

--- Heights above the panels: title and legend.
local function head(canvas, figure)
  local title_height = figure.title and 28 or 0
  local rows = flow(canvas, figure.legend or {}, figure.width - 2 * MARGIN)
  return title_height, MARGIN + title_height + rows * KEY_ROW + (rows > 0 and 10 or 0)
end

--- Draws a figure: uint8 [H,W,3], and where each panel's axes lie.
---@param figure perigee.Figure
---@return perigee.Tensor picture, perigee.Frame[] frames
function M.draw(figure)
  local scale, columns = figure.scale or 2, figure.columns or (#figure.panels > 1 and 2 or 1)
  figure.width = figure.width or 900
  local measure = cairo.canvas(1, 1, 1)
  local title_height, top = head(measure, figure)
  local frames, height = arrange(measure, figure, columns, top)
  local canvas = cairo.canvas(figure.width, height, scale)
  if figure.title then canvas:text(MARGIN, MARGIN + 14, figure.title, TITLE) end
  draw_keys(canvas, figure.legend or {}, MARGIN, MARGIN + title_height)
  for k, panel in ipairs(figure.panels) do
    local frame = frames[k]
    canvas:text(frame.outer, frame.head + 15, panel.title, PANEL_TITLE)
    draw_keys(canvas, panel.legend or {}, frame.outer, frame.head + 22)
    draw_axes(canvas, panel, frame)
    canvas:within(frame.left, frame.top - 3, frame.right - frame.left + 3, frame.bottom - frame.top + 6, function()
      draw_data(canvas, panel, frame)
    end)
  end
  return canvas:picture(), frames
end

return M
