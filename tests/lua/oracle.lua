--- Fixtures computed by PyTorch (tests/oracle/README.md), and how near a tensor is to one.
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local json = require "perigee.io.json"
local safetensors = require "perigee.io.safetensors"

local tensor = core.tensor
local M = { folder = door.home .. "/tests/oracle/fixtures/" }

function M.path(name) return M.folder .. name .. ".safetensors" end

--- A fixture's tensors by name, and its settings.
function M.load(name)
  local tensors, metadata = safetensors.load(M.path(name))
  return tensors, metadata.settings and json.decode(metadata.settings, name) or {}
end

--- ‖a − b‖ / ‖b‖ over the whole tensors, whatever their dtypes; infinite where shapes differ or a number is no number.
function M.distance(actual, expected)
  if door.shape_text(actual.shape) ~= door.shape_text(expected.shape) then return math.huge end
  local a, n = tensor.to_host(actual:to "float64")
  local b = tensor.to_host(expected:to "float64")
  local difference, size = 0, 0
  for k = 0, n - 1 do
    local x, y = tonumber(a[k]), tonumber(b[k])
    difference, size = difference + (x - y) ^ 2, size + y ^ 2
  end
  local distance = math.sqrt(difference / math.max(size, 1e-300))
  return distance == distance and distance or math.huge
end

--- An error unless the two are within `bound` of each other, relative.
function M.near(what, actual, expected, bound)
  local distance = M.distance(actual, expected)
  if distance > (bound or 1e-5) then
    error(("%s: %s is %.3g from the fixture's %s, more than %g"):format(what, door.shape_text(actual.shape), distance,
      door.shape_text(expected.shape), bound or 1e-5), 2)
  end
end

--- A tensor's first number.
function M.number(t) return t:reshape({ t:numel() }):totable()[1] end

--- An error unless a number is within `bound` of the fixture's, relative.
function M.near_number(what, actual, expected, bound)
  local within = math.abs(actual - expected) <= bound * math.abs(expected) + 1e-9
  if not within then error(("%s: %.9g, the fixture has %.9g"):format(what, actual, expected), 2) end
end

return M
