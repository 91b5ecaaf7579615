--- Lines of numbers as one figure, for scripts and the REPL.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local figure = require "perigee.plot.figure"
local tensor = require "perigee.core.tensor"

local M = {}

--- A list of numbers, from a list or a tensor of one dimension.
local function numbers(what, given)
  if tensor.is_tensor(given) and #given.shape == 1 then return given:totable() end
  if tensor.is_tensor(given) then
    core.fail("plot: %s is a tensor %s; expected one dimension", what, core.shape_text(given.shape))
  end
  if type(given) ~= "table" then core.fail("plot: %s is a %s; expected a list or a tensor", what, type(given)) end
  for k, value in ipairs(given) do
    if type(value) ~= "number" then
      core.fail("plot: %s holds a %s at %d; expected numbers", what, type(value), k)
    end
  end
  return given
end

local function is_numbers(x) return tensor.is_tensor(x) or (type(x) == "table" and type(x[1]) == "number") end

local function series(label, xs, ys)
  ys = numbers("y of " .. label, ys)
  xs = xs and numbers("x of " .. label, xs)
  if not xs then
    xs = {}
    for k = 1, #ys do xs[k] = k end
  end
  if #xs ~= #ys then core.fail("plot: %s has %d x and %d y", label, #xs, #ys) end
  return { label = label, xs = xs, ys = ys }
end

--- The lines of pg.plot's list: y; x, y, further y; or tables { x, y, label = }.
local function lines_of(given, labels)
  local list = {}
  local function add(xs, ys, label) list[#list + 1] = series(label or "line " .. #list + 1, xs, ys) end
  if #given == 1 and is_numbers(given[1]) then add(nil, given[1], labels[1])
  elseif is_numbers(given[1]) then
    for k = 2, #given do add(given[1], given[k], labels[k - 1]) end
  else
    for k, line in ipairs(given) do
      if type(line) ~= "table" then
        core.fail("plot: line %d is a %s; expected { x, y, label = ... }", k, type(line))
      end
      if line[2] ~= nil then add(line[1], line[2], line.label) else add(nil, line[1], line.label) end
    end
  end
  if #list == 0 then
    core.fail "plot: nothing to draw; write pg.plot { y }, pg.plot { x, y } or pg.plot { { x, y }, ... }"
  end
  return list
end

--- Pieces of a line between numbers that cannot be drawn.
local function pieces(line, log, stroke)
  local list, piece = {}, nil
  for k, y in ipairs(line.ys) do
    local x = line.xs[k]
    if math.abs(x) < math.huge and math.abs(y) < math.huge and (not log or y > 0) then
      if not piece then
        piece = { xs = {}, ys = {}, stroke = stroke }
        list[#list + 1] = piece
      end
      piece.xs[#piece.xs + 1], piece.ys[#piece.ys + 1] = x, y
    else piece = nil end
  end
  return list
end

local rules = {
  path = { "string", "plot.png" }, title = { "string", "" }, x = { "string", "" }, log = { "boolean", false },
  labels = { "table", {} },
}

---@class perigee.PlotOptions
---@field [integer] number[]|perigee.Tensor|table  y; x, y, further y; or lines { x, y, label = "..." }
---@field path? string      "plot.png"
---@field title? string
---@field x? string         what stands under the x axis
---@field log? boolean      a logarithmic y axis, without numbers that are not above 0
---@field labels? string[]  of the lines, where these are no tables

--- Draws lines into a PNG file: pg.plot { y }, pg.plot { x, y }, pg.plot { { x, y, label = "a" }, { z, label = "b" } }.
--- A value that is NaN or infinite leaves a gap. Returns the path.
---@param given perigee.PlotOptions
---@return string
function M.plot(given)
  if type(given) ~= "table" or tensor.is_tensor(given) then core.fail "plot: expected a table: pg.plot { y }" end
  local named, list = {}, {}
  for key, value in pairs(given) do
    if type(key) == "number" then list[key] = value else named[key] = value end
  end
  local o = check.options("plot", named, rules)
  local lines, keys, drawn = lines_of(list, o.labels), {}, {}
  for k, line in ipairs(lines) do
    local stroke = { colour = figure.palette[(k - 1) % #figure.palette + 1], width = 1.5 }
    keys[k] = { label = line.label, stroke = stroke }
    for _, piece in ipairs(pieces(line, o.log, stroke)) do drawn[#drawn + 1] = piece end
  end
  if #drawn == 0 then
    core.fail "plot: no number can be drawn: all are NaN, infinite, or not above 0 with log = true"
  end
  local labelled = #lines > 1 or o.labels[1] or (list[1] and not is_numbers(list[1]) and list[1].label)
  require("perigee.io.png").save(o.path, (figure.draw {
    title = o.title ~= "" and o.title or nil, legend = labelled and keys or nil,
    panels = { { title = "", x_label = o.x, lines = drawn, log = o.log } },
  }))
  return o.path
end

return M
