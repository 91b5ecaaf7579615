local tensor = require "perigee.core.tensor"

local function clamped_bytes(x)
  local list = {}
  for b, image in ipairs(x:totable()) do
    list[b] = {}
    for c, plane in ipairs(image) do
      for h, row in ipairs(plane) do
        list[b][h] = list[b][h] or {}
        for w, value in ipairs(row) do
          list[b][h][w] = list[b][h][w] or {}
          list[b][h][w][c] = math.floor(math.max(0, math.min(255, 255 * (value + 1) / 2)))
        end
      end
    end
  end
  return tensor.tensor(list, "uint8")
end

local cases = {}
for _, shape in ipairs { { 1, 1, 1, 1 }, { 2, 3, 5, 31 }, { 2, 4, 33, 3 }, { 2, 3, 5, 32 }, { 1, 2, 72, 4 } } do
  local size = table.concat(shape, "x")
  cases[#cases + 1] = {
    name = "images there and back " .. size,
    run = function(ops, x)
      return ops.images(ops.images_to_bytes(x), { scale = 1 / 127.5, offset = -1, dtype = x.dtype })
    end,
    inputs = { { shape = shape } },
    reference = function(ops, x)
      return ops.permute(clamped_bytes(x):to(x.dtype), { 1, 4, 2, 3 }) * (1 / 127.5) - 1
    end,
    tolerance = { float32 = 1e-6, float64 = 1e-14, bfloat16 = 2e-2 },
  }
end
cases[#cases + 1] = {
  name = "images with a scale and an offset for each channel",
  run = function(ops, x)
    return ops.images(ops.images_to_bytes(x), { scale = { 1, 2, 3 }, offset = { 4, 5, 6 }, dtype = x.dtype })
  end,
  inputs = { { shape = { 2, 3, 4, 7 } } },
  reference = function(ops, x)
    local factors, offsets = tensor.tensor({ 1, 2, 3 }, x.dtype), tensor.tensor({ 4, 5, 6 }, x.dtype)
    return ops.permute(clamped_bytes(x):to(x.dtype) * factors + offsets, { 1, 4, 2, 3 })
  end,
  tolerance = { float32 = 1e-6, float64 = 1e-14, bfloat16 = 2e-2 },
}
return cases
