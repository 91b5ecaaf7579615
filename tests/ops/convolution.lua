local op = require "perigee.core.op"

--- y by its definition, in Lua numbers: nested tables from float64 tensors.
local function direct(x, weight, bias, stride, padding)
  local top, bottom, left, right = unpack(padding)
  local height, width = #x[1][1], #x[1][1][1]
  local tall, broad = #weight[1][1], #weight[1][1][1]
  local y = {}
  for b = 1, #x do
    y[b] = {}
    for o = 1, #weight do
      local plane = {}
      for p = 0, math.floor((height + top + bottom - tall) / stride) do
        local row = {}
        for q = 0, math.floor((width + left + right - broad) / stride) do
          local sum = bias and bias[o] or 0
          for c, image in ipairs(x[b]) do
            local window = weight[o][c]
            for i = 1, tall do
              local line = image[p * stride + i - top]
              for j = 1, line and broad or 0 do
                sum = sum + window[i][j] * (line[q * stride + j - left] or 0)
              end
            end
          end
          row[q + 1] = sum
        end
        plane[p + 1] = row
      end
      y[b][o] = plane
    end
  end
  return y
end

local function sides(padding)
  return type(padding) == "table" and padding or { padding, padding, padding, padding }
end

local cases = {}

--- x and weight by their shapes; differences: the gradients' too.
local function add(x, weight, options)
  local stride, padding = options.stride or 1, options.padding or 0
  local inputs = { { shape = x }, { shape = weight } }
  if options.bias ~= false then inputs[3] = { shape = { weight[1] } } end
  local gradients
  if options.gradients then gradients = options.bias == false and { 1, 2 } or { 1, 2, 3 } end
  cases[#cases + 1] = {
    name = ("convolution %s by %s, stride %d, padding %s%s"):format(table.concat(x, "x"), table.concat(weight, "x"),
      stride, table.concat(sides(padding), ","), options.bias == false and ", no bias" or ""),
    run = function(ops, images, kernels, bias)
      return ops.convolution(images, kernels, bias, { stride = stride, padding = padding })
    end,
    inputs = inputs,
    reference = function(_, images, kernels, bias)
      return direct(images:totable(), kernels:totable(), bias and bias:totable(), stride, sides(padding))
    end,
    gradients = gradients,
  }
end

-- What a decoder of images is made of: 3x3, 1x1, and its encoder's 3x3 of stride 2, padded at two sides.
add({ 2, 3, 8, 8 }, { 4, 3, 3, 3 }, { padding = 1, gradients = true })
add({ 2, 5, 4, 6 }, { 7, 5, 1, 1 }, { gradients = true })
add({ 2, 4, 8, 6 }, { 3, 4, 3, 3 }, { stride = 2, padding = { 0, 1, 0, 1 }, gradients = true })
add({ 2, 35, 9, 33 }, { 31, 35, 3, 3 }, { padding = 1 })
add({ 1, 17, 40, 20 }, { 33, 17, 3, 3 }, { padding = 1, bias = false })
-- Edges: one of everything, sizes around the width of vectors, kernels as large as the image and larger, even ones.
add({ 1, 1, 1, 1 }, { 1, 1, 1, 1 }, { gradients = true })
add({ 1, 1, 1, 1 }, { 2, 1, 3, 3 }, { padding = 1, gradients = true })
add({ 1, 2, 31, 1 }, { 3, 2, 3, 1 }, { padding = { 1, 1, 0, 0 }, bias = false, gradients = true })
add({ 1, 2, 1, 33 }, { 1, 2, 1, 4 }, { padding = { 0, 0, 2, 1 }, gradients = true })
add({ 2, 1, 5, 7 }, { 2, 1, 5, 7 }, { gradients = true })
add({ 1, 2, 3, 3 }, { 2, 2, 5, 4 }, { padding = { 2, 1, 0, 3 }, gradients = true })
add({ 3, 2, 7, 5 }, { 2, 2, 2, 2 }, { gradients = true })
-- Strides: beyond the kernel, some pixels unseen, rows and columns left over.
add({ 2, 2, 9, 11 }, { 3, 2, 3, 3 }, { stride = 2, padding = 1, gradients = true })
add({ 1, 2, 10, 8 }, { 2, 2, 2, 2 }, { stride = 3, gradients = true })
add({ 1, 3, 33, 31 }, { 2, 3, 4, 4 }, { stride = 4, padding = 1, gradients = true })
add({ 1, 1, 6, 6 }, { 2, 1, 1, 1 }, { stride = 2, bias = false, gradients = true })
-- Sums longer than one block of the depth, forward and backward.
add({ 1, 70, 3, 3 }, { 2, 70, 3, 3 }, { padding = 1, gradients = true })
add({ 2, 2, 24, 25 }, { 60, 2, 3, 3 }, { padding = 1, gradients = true })

--- 3×3 kernels, of images that are enlarged or not, against the same by `convolution`.
local function add_3x3(x, outputs, enlarge, options)
  options = options or {}
  local inputs = { { shape = x }, { shape = { outputs, x[2], 3, 3 } } }
  if options.bias ~= false then inputs[3] = { shape = { outputs } } end
  cases[#cases + 1] = {
    name = ("convolution_3x3 %s to %d channels, enlarged by %d"):format(table.concat(x, "x"), outputs, enlarge),
    run = function(ops, images, kernels, bias)
      return ops.convolution_3x3(images, kernels, bias, { enlarge = enlarge })
    end,
    inputs = inputs,
    reference = function(_, images, kernels, bias)
      return op.defined.convolution_3x3.plain { x = images, weight = kernels, bias = bias, enlarge = enlarge }
    end,
    gradients = options.gradients and { 1, 2, inputs[3] and 3 } or nil,
  }
end

for enlarge = 1, 2 do
  add_3x3({ 1, 1, 1, 1 }, 1, enlarge, { gradients = true })
  add_3x3({ 2, 3, 5, 4 }, 2, enlarge, { gradients = true })
  add_3x3({ 1, 2, 4, 7 }, 3, enlarge, { gradients = true, bias = false })
  add_3x3({ 1, 5, 2, 33 }, 15, enlarge)
  add_3x3({ 3, 17, 9, 3 }, 29, enlarge) -- several blocks of tiles, where there are several threads
end

local function wrong(name, x, weight, options, message, bias)
  cases[#cases + 1] = {
    name = "convolution " .. name,
    run = function(ops, images, kernels, b) return ops.convolution(images, kernels, b, options) end,
    inputs = { { shape = x }, { shape = weight }, bias and { shape = bias } or nil },
    error = message,
  }
end

wrong("of other channels", { 1, 3, 4, 4 }, { 2, 4, 3, 3 }, {},
  "x is [1,3,4,4], weight is [2,4,3,3]; expected [B,C,H,W] and [O,C,kh,kw]")
wrong("of a matrix", { 3, 4 }, { 2, 4, 3, 3 }, {}, "x is [3,4], weight is [2,4,3,3]; expected [B,C,H,W]")
wrong("by a kernel too large", { 1, 1, 2, 4 }, { 1, 1, 5, 3 }, { padding = 1 },
  "x is [1,1,2,4], 4x6 with its padding; weight is [1,1,5,3], a larger kernel")
wrong("with another bias", { 1, 1, 4, 4 }, { 2, 1, 3, 3 }, {}, "weight is [2,1,3,3], bias is [3]; expected [2]", { 3 })
wrong("with stride 0", { 1, 1, 4, 4 }, { 2, 1, 3, 3 }, { stride = 0 }, "stride is 0; expected a whole number from 1")
wrong("with two paddings", { 1, 1, 4, 4 }, { 2, 1, 3, 3 }, { padding = { 1, 1 } },
  "padding is [1,1]; expected a whole number, or { top, bottom, left, right }")
wrong("with an unknown option", { 1, 1, 4, 4 }, { 2, 1, 3, 3 }, { dilation = 2 }, "unknown option 'dilation'")

cases[#cases + 1] = {
  name = "convolution_3x3 by another kernel",
  run = function(ops, x, weight) return ops.convolution_3x3(x, weight) end,
  inputs = { { shape = { 1, 2, 4, 4 } }, { shape = { 2, 2, 1, 3 } } },
  error = "x is [1,2,4,4], weight is [2,2,1,3]; expected [B,C,H,W] and [O,C,3,3]" }
cases[#cases + 1] = {
  name = "convolution_3x3 enlarged by 3",
  run = function(ops, x, weight) return ops.convolution_3x3(x, weight, nil, { enlarge = 3 }) end,
  inputs = { { shape = { 1, 2, 4, 4 } }, { shape = { 2, 2, 3, 3 } } },
  error = "enlarge is 3; expected 1 or 2" }

return cases
