--- Held against a direct sum over all inputs with weights worked out here, not separably. That these are PyTorch's
--- conventions is tested with its fixtures (tests/lua/resize_spec.lua).
local ffi = require "ffi"
local tensor = require "perigee.core.tensor"

local tolerance = { float32 = 3e-6, float64 = 1e-12, bfloat16 = 2e-2 }

local function cubic(x, a)
  x = math.abs(x)
  if x < 1 then return (a + 2) * x ^ 3 - (a + 3) * x ^ 2 + 1 end
  return x < 2 and a * (x ^ 3 - 5 * x ^ 2 + 8 * x - 4) or 0
end

local function float32(x) return tonumber(ffi.cast("float", x)) end

local function triangle(x) return math.max(1 - math.abs(x), 0) end

--- weights[i][k]: what output i takes from input k.
local function weights(from, to, mode, antialias, corner)
  local scale = from / to
  local stretch = antialias and math.max(scale, 1) or 1
  local reach = (mode == "bicubic" and 2 or 1) * stretch
  local rows = {}
  for i = 0, to - 1 do
    local centre, row, sum = corner and float32(i * float32(scale)) or (i + 0.5) * scale - 0.5, {}, 0
    for k = 0, from - 1 do row[k] = 0 end
    for k = math.floor(centre - reach), math.ceil(centre + reach) do
      local at = math.max(0, math.min(from - 1, k))
      if at == k or not antialias then
        local distance = (k - centre) / stretch
        local weight = mode == "bicubic" and cubic(distance, antialias and -0.5 or -0.75) or triangle(distance)
        row[at], sum = row[at] + weight, sum + weight
      end
    end
    for k = 0, from - 1 do row[k] = row[k] / (antialias and sum or 1) end
    rows[i] = row
  end
  return rows
end

--- planes[plane][k], k over height·width, at another size.
local function resample(planes, height, width, to, mode, antialias, corner)
  local down, across = weights(height, to[1], mode, antialias, corner), weights(width, to[2], mode, antialias, corner)
  local result = {}
  for p, plane in ipairs(planes) do
    result[p] = {}
    for i = 0, to[1] - 1 do
      for j = 0, to[2] - 1 do
        local sum = 0
        for y = 0, height - 1 do
          for x = 0, width - 1 do
            local weight = down[i][y] * across[j][x]
            if weight ~= 0 then sum = sum + weight * plane[y * width + x + 1] end
          end
        end
        result[p][i * to[2] + j + 1] = sum
      end
    end
  end
  return result
end

local function images(x, to, mode, antialias, corner)
  local s = x.shape
  local planes = resample(x:reshape({ s[1] * s[2], s[3] * s[4] }):totable(), s[3], s[4], to, mode, antialias,
    corner)
  return tensor.tensor(planes, x.dtype):reshape { s[1], s[2], to[1], to[2] }
end

local function tokens(ops, x, from, to, mode, antialias, skip)
  local s, n = x.shape, from[1] * from[2]
  local width = x:numel() / s[1] / s[2]
  local kept = ops.narrow(x:reshape { s[1], s[2], width }, 2, skip + 1, n)
  local planes = ops.contiguous(ops.transpose(kept, 2, 3)):reshape({ s[1] * width, n }):totable()
  local resampled = tensor.tensor(resample(planes, from[1], from[2], to, mode, antialias), x.dtype)
  local shape = { s[1], to[1] * to[2] }
  for d = 3, #s do shape[d] = s[d] end
  return ops.contiguous(ops.transpose(resampled:reshape { s[1], width, to[1] * to[2] }, 2, 3)):reshape(shape)
end

local cases = {}
for _, mode in ipairs { "bilinear", "bicubic" } do
  for _, antialias in ipairs { false, true } do
    for _, size in ipairs { { 7, 5, 13, 4 }, { 16, 16, 14, 14 }, { 1, 3, 5, 1 }, { 31, 3, 1, 7 }, { 3, 2, 2, 33 } } do
      local from, to = { size[1], size[2] }, { size[3], size[4] }
      local gradients = size[1] * size[2] < 100 and { 1 } or nil
      local name = ("%s%s %dx%d to %dx%d"):format(mode, antialias and " antialiased" or "", unpack(size))
      cases[#cases + 1] = {
        name = "resize " .. name,
        run = function(ops, x) return ops.resize(x, { size = to, mode = mode, antialias = antialias }) end,
        inputs = { { shape = { 2, 1, size[1], size[2] } } },
        reference = function(_, x) return images(x, to, mode, antialias) end,
        gradients = gradients,
        tolerance = tolerance,
      }
      cases[#cases + 1] = {
        name = "resize_tokens " .. name,
        run = function(ops, x)
          return ops.resize_tokens(x, { from = from, to = to, mode = mode, antialias = antialias, skip = 2 })
        end,
        inputs = { { shape = { 1, 2 + size[1] * size[2], 3, 2 } } },
        reference = function(ops, x) return tokens(ops, x, from, to, mode, antialias, 2) end,
        gradients = gradients,
        tolerance = tolerance,
      }
    end
  end
end
for _, size in ipairs { { 7, 5, 13, 4 }, { 1, 3, 5, 1 }, { 31, 3, 1, 7 }, { 3, 2, 2, 33 } } do
  for _, mode in ipairs { "bilinear", "bicubic" } do
    cases[#cases + 1] = {
      name = ("resize %s from the corner %dx%d to %dx%d"):format(mode, unpack(size)),
      run = function(ops, x) return ops.resize(x, { size = { size[3], size[4] }, mode = mode, corner = true }) end,
      inputs = { { shape = { 2, 1, size[1], size[2] } } },
      reference = function(_, x) return images(x, { size[3], size[4] }, mode, false, true) end,
      gradients = { 1 },
      tolerance = tolerance,
    }
  end
end
cases[#cases + 1] = {
  name = "resize from the corner with antialias",
  run = function(ops, x) return ops.resize(x, { size = 2, antialias = true, corner = true }) end,
  inputs = { { shape = { 1, 1, 4, 4 } } },
  error = "resize: corner and antialias exclude each other",
}
cases[#cases + 1] = {
  name = "resize_tokens to the same grid leaves the first tokens out",
  run = function(ops, x) return ops.resize_tokens(x, { from = { 2, 2 }, to = { 2, 2 }, skip = 1 }) end,
  inputs = { { shape = { 2, 5, 3 } } },
  reference = function(ops, x) return ops.narrow(x, 2, 2, 4) end,
  gradients = { 1 },
  tolerance = { float32 = 1e-7, float64 = 0, bfloat16 = 4e-3 },
}
return cases
