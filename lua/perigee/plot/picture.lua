--- Tensors as pictures: scaled to bytes, enlarged so that one sees them, side by side.
local check = require "perigee.core.check"
local core = require "perigee.core.ffi"
local ops = require "perigee.core.ops"
local tensor = require "perigee.core.tensor"

local M = {}

local SIDE, GAP, WHITE = 512, 2, 255 -- pixels: the longer side of what is shown, at least so; between pictures

--- Any of [H,W], [H,W,C], [C,H,W], [N,H,W], [N,H,W,C], [N,C,H,W] as [N,H,W,C]; C is 1 or 3.
local function as_pictures(x)
  local shape = x.shape
  local function channels(d) return shape[d] == 1 or shape[d] == 3 end
  if #shape == 2 then return x:reshape { 1, shape[1], shape[2], 1 } end
  if #shape == 3 and channels(3) then return x:unsqueeze(1) end
  if #shape == 3 and channels(1) then return x:permute({ 2, 3, 1 }):unsqueeze(1) end
  if #shape == 3 then return x:unsqueeze(4) end
  if #shape == 4 and channels(4) then return x end
  if #shape == 4 and channels(2) then return x:permute { 1, 3, 4, 2 } end
  core.fail("show: a tensor %s; expected [H,W], [H,W,3], [3,H,W], [N,H,W], [N,H,W,3] or [N,3,H,W]",
    core.shape_text(shape))
end

--- Numbers as uint8: `low` becomes 0, `high` 255; what lies outside is clipped, and NaN is as low. By default the least
--- and the largest finite number; bytes stay as they are.
---@param x perigee.Tensor
---@param low? number
---@param high? number
---@return perigee.Tensor
function M.bytes(x, low, high)
  if x.dtype == "uint8" and not low and not high then return x end
  x = x:to "float32"
  local finite = ops.isfinite(x)
  low = low or ops.where(finite, x, math.huge):min():item()
  high = high or ops.where(finite, x, -math.huge):max():item()
  local factor = high > low and 255 / (high - low) or 0
  x = ops.where(ops.isnan(x), low, x):clamp(low, math.max(low, high))
  return ops.affine(x, factor, -low * factor):round():to "uint8"
end

--- Every pixel of [N,H,W,C] becomes factor × factor.
function M.enlarge(images, factor)
  local n, h, w, c = unpack(images.shape)
  if factor == 1 then return images end
  local wide = images:reshape({ n * h, w, 1, c }):expand { n * h, w, factor, c }
  return wide:reshape({ n * h, 1, w * factor * c }):expand({ n * h, factor, w * factor * c })
    :reshape { n, h * factor, w * factor, c }
end

local function blank(shape) return ops.fill(shape, { value = WHITE, dtype = "uint8" }) end

--- Pictures [H,W,3] in a row, from the top, with white between and below.
---@param pictures perigee.Tensor[]
---@param gap integer  pixels
---@return perigee.Tensor
function M.row(pictures, gap)
  local height, parts = 0, {}
  for _, picture in ipairs(pictures) do height = math.max(height, picture.shape[1]) end
  for k, picture in ipairs(pictures) do
    local h, w, c = unpack(picture.shape)
    if k > 1 then parts[#parts + 1] = blank { height, gap, c } end
    parts[#parts + 1] = h < height and ops.concat({ picture, blank { height - h, w, c } }, 1) or picture
  end
  return ops.concat(parts, 2)
end

local function grid(images, columns)
  local n, h, w, c = unpack(images.shape)
  local rows = {}
  for first = 1, n, columns do
    local row = {}
    for k = 1, columns do row[k] = first + k - 1 <= n and images:select(1, first + k - 1) or blank { h, w, c } end
    if first > 1 then rows[#rows + 1] = blank { GAP, columns * (w + GAP) - GAP, c } end
    rows[#rows + 1] = M.row(row, GAP)
  end
  return ops.concat(rows, 1)
end

local rules = { low = { "number" }, high = { "number" }, columns = { "count" }, enlarge = { "count" } }

---@class perigee.ShowOptions
---@field low? number       what is black: the least number
---@field high? number      what is white: the largest number
---@field columns? integer  of a grid: as many as make it square
---@field enlarge? integer  pixels for one element, in each direction: so many that the whole has 512 at least

--- A tensor as a picture, grey or in colour, in a PNG file. Several pictures make a grid. Bytes are shown as they are,
--- other numbers from the least to the largest of all. Returns the path.
---@param x perigee.Tensor  [H,W], [H,W,3], [3,H,W], [N,H,W], [N,H,W,3] or [N,3,H,W]
---@param path? string      "show.png"
---@param options? perigee.ShowOptions
---@return string
function M.show(x, path, options)
  if not tensor.is_tensor(x) then core.fail("show: expected a tensor, got a %s", type(x)) end
  if x:numel() == 0 then core.fail("show: the tensor %s has no elements", core.shape_text(x.shape)) end
  if path ~= nil and type(path) ~= "string" then core.fail("show: the path is a %s; expected a text", type(path)) end
  local o = check.options("show", options or {}, rules)
  path = path or "show.png"
  tensor.tidy(function()
    local images = as_pictures(M.bytes(x:to "cpu", o.low, o.high))
    local n, h, w = unpack(images.shape)
    local columns = math.min(n, o.columns or math.ceil(math.sqrt(n)))
    local longer = math.max(math.ceil(n / columns) * h, columns * w)
    require("perigee.io.png").save(path, grid(M.enlarge(images, o.enlarge or math.ceil(SIDE / longer)), columns))
  end)
  return path
end

return M
