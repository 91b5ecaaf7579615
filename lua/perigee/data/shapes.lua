--- Eight kinds of shapes, 32×32 RGB, drawn here: no file is needed. Bright shapes of any hue on dark two-colour
--- gradients, with the shape's place, size, tilt and colours and the background's colours and direction all drawn at
--- random.
---
---   pg.data.shapes { batch = 32, count = 8192, seed = 0 }
---
--- Shape k of a set has its sixteen random numbers from (seed, k) alone. Each is drawn by its signed distance (negative
--- inside, in pixels), so its edge is smooth.
local ffi = require "ffi"
local check = require "perigee.core.check"
local dataset = require "perigee.data.dataset"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local abs, cos, sin, sqrt, atan2, floor = math.abs, math.cos, math.sin, math.sqrt, math.atan2, math.floor
local max, min, pi = math.max, math.min, math.pi

local SIZE, NUMBERS = 32, 16
local NAMES = { "disc", "ring", "square", "triangle", "cross", "star", "crescent", "bars" }

-- ---- signed distances of a point (x, y) to shapes of radius r around the origin, y downwards --------------------

local function disc(x, y, r) return sqrt(x * x + y * y) - r end

local function ring(x, y, r) return abs(sqrt(x * x + y * y) - 0.74 * r) - 0.26 * r end

local function square(x, y, r) return max(abs(x), abs(y)) - 0.82 * r end

local function triangle(x, y, r) return max(y - 0.55 * r, abs(x) * 0.8660254 - y * 0.5 - 0.55 * r) end

local function cross(x, y, r)
  local half = 0.3 * r
  return min(max(abs(x) - r, abs(y) - half), max(abs(y) - r, abs(x) - half))
end

--- Five points: the plane is folded into one tenth of the turn, where the star's edge is one line.
local function star(x, y, r)
  local sector, length, angle = 2 * pi / 5, sqrt(x * x + y * y), atan2(x, -y)
  local folded = abs(angle - sector * floor(angle / sector + 0.5))
  local tip = 1.05 * r
  local along, across = 0.42 * r * cos(sector / 2) - tip, 0.42 * r * sin(sector / 2)
  local px, py = length * cos(folded) - tip, length * sin(folded)
  return (px * across - py * along) / sqrt(along * along + across * across)
end

local function crescent(x, y, r)
  local dx = x - 0.5 * r
  return max(sqrt(x * x + y * y) - r, 0.8 * r - sqrt(dx * dx + y * y))
end

local function bars(x, y, r)
  return max(abs(x) - 0.9 * r, min(abs(y) - 0.18 * r, abs(abs(y) - 0.72 * r) - 0.18 * r))
end

local distances = { disc, ring, square, triangle, cross, star, crescent, bars }
local tilts = { 0, 0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.35 } -- the largest tilt of each kind, in radians

-- ---- drawing ----------------------------------------------------------------------------------------------------

local function channel(hue, offset, saturation, value)
  local distance = abs((hue * 6 + offset) % 6 - 3) - 1
  return value * (1 - saturation + saturation * max(0, min(1, distance)))
end

local function colour(hue, saturation, value)
  return channel(hue, 0, saturation, value), channel(hue, 4, saturation, value), channel(hue, 2, saturation, value)
end

--- Draws a picture of kind `label` (from 0) from sixteen numbers u[0..15] of [0, 1) into bytes [32,32,3].
local function draw(bytes, label, u)
  local distance = distances[label + 1]
  local r = 8.5 + 4.5 * u[0]
  local room = SIZE - 2 * (r + 0.5)
  local cx, cy = r + 0.5 + room * u[1], r + 0.5 + room * u[2]
  local tilt = (u[3] * 2 - 1) * tilts[label + 1]
  local tilt_cos, tilt_sin = cos(tilt), sin(tilt)
  local fr, fg, fb = colour(u[4], 0.2 + 0.6 * u[5], 0.75 + 0.25 * u[6])
  local ar, ag, ab = colour(u[7], 0.3 + 0.6 * u[8], 0.05 + 0.35 * u[9])
  local br, bg, bb = colour(u[10], 0.3 + 0.6 * u[11], 0.05 + 0.35 * u[12])
  local across, down = cos(u[13] * 2 * pi) / 16, sin(u[13] * 2 * pi) / 16
  local at = 0
  for row = 0, SIZE - 1 do
    for column = 0, SIZE - 1 do
      local px, py = column + 0.5, row + 0.5
      local x, y = px - cx, py - cy
      local d = distance(tilt_cos * x + tilt_sin * y, tilt_cos * y - tilt_sin * x, r)
      local cover = max(0, min(1, 0.5 - d / 1.5))
      local blend = max(0, min(1, 0.5 + 0.4 * ((px - 16) * across + (py - 16) * down)))
      local red, green, blue = ar + (br - ar) * blend, ag + (bg - ag) * blend, ab + (bb - ab) * blend
      bytes[at] = floor(255 * (red + (fr - red) * cover) + 0.5)
      bytes[at + 1] = floor(255 * (green + (fg - green) * cover) + 0.5)
      bytes[at + 2] = floor(255 * (blue + (fb - blue) * cover) + 0.5)
      at = at + 3
    end
  end
end

--- Pictures and labels of a set: uint8 [count,32,32,3] and int64 [count], the kinds in turn.
local function make(count, seed)
  local state = tensor.tensor({ seed, 0, 0 }, "int64")
  local numbers = ops.random_uniform({ count, NUMBERS }, { state = state, purpose = "shapes" })
  local images, labels = tensor.empty({ count, SIZE, SIZE, 3 }, "uint8", { purpose = "data" }),
    ffi.new("int64_t[?]", count)
  local bytes, u = images:pointer(), numbers:pointer()
  for kind = 0, #NAMES - 1 do -- one kind after another: each loop is compiled for its shape
    for k = kind, count - 1, #NAMES do
      labels[k] = kind
      draw(bytes + k * SIZE * SIZE * 3, kind, u + k * NUMBERS)
    end
  end
  numbers:free()
  return images, tensor.tensor(labels, { count }, "int64")
end

---@class perigee.ShapesOptions : perigee.DatasetOptions
---@field count? integer  pictures in the set, default 8192
---@field seed? integer   another set for another seed

---@class perigee.data
---@field shapes fun(options: perigee.ShapesOptions): perigee.Dataset

---@param given perigee.ShapesOptions
---@return perigee.Dataset
return function(given)
  local o = check.options("data.shapes", given, dataset.spec { count = { "integer", 8192 }, seed = { "integer", 0 } })
  return dataset.new {
    name = "shapes", classes = #NAMES, channels = 3, height = SIZE, width = SIZE, batch = o.batch,
    flip = o.flip, crop = o.crop, shuffle = o.shuffle, threads = o.threads, depth = o.depth, class_names = NAMES,
    find = function()
      local images, labels = make(o.count, o.seed)
      return o.count, { images = { tensor = images, augment = true }, labels = { tensor = labels } }
    end,
  }
end
