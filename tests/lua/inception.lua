--- Weights of the Inception network by the formula of tests/oracle/build_inception.py, in files of both kinds that
--- carry the public ones.
local bit = require "bit"
local ffi = require "ffi"
local module = require "perigee.nn.module"
local pytorch = require "perigee.io.pytorch"
local tensor = require "perigee.core.tensor"

local M = {}

--- u[k] in [−1, 1) for k < count.
local function unit(name, count)
  local function times(x, factor) return ffi.cast("uint32_t", ffi.cast("uint64_t", x) * factor) end
  local h = ffi.cast("uint32_t", 2166136261)
  for k = 1, #name do h = times(bit.bxor(tonumber(h), name:byte(k)) % 2 ^ 32, 16777619ULL) end
  local out, state, words = ffi.new("double[?]", count), tonumber(h), ffi.new "uint32_t[1]"
  for k = 0, count - 1 do
    local x = state
    x = bit.bxor(x, bit.rshift(x, 16))
    words[0] = x
    words[0] = ffi.cast("uint64_t", words[0]) * 0x7FEB352DULL
    x = words[0]
    x = bit.bxor(x, bit.rshift(x, 15))
    words[0] = x
    words[0] = ffi.cast("uint64_t", words[0]) * 0x846CA68BULL
    x = words[0]
    words[0] = bit.bxor(x, bit.rshift(x, 16))
    out[k] = words[0] / 2147483648 - 1
    state = (state + 0x9E3779B9) % 2 ^ 32
  end
  return out
end

local function tensor_of(name, shape)
  local count = 1
  for _, n in ipairs(shape) do count = count * n end
  local u = unit(name, count)
  local scale, offset = 0.1, 0
  if name:match "%.conv%.weight$" then scale = math.sqrt(6 / (count / shape[1]))
  elseif name:match "%.bn%.weight$" then offset = 1
  elseif name:match "%.bn%.bias$" then scale = 0.05
  elseif name:match "%.running_var$" then scale, offset = 0.25, 1
  elseif name == "fc.weight" then scale = math.sqrt(3 / 2048) end
  local values = ffi.new("float[?]", count)
  for k = 0, count - 1 do values[k] = offset + scale * u[k] end
  return tensor.tensor(values, shape, "float32")
end

--- Calls take(public name without its last part, place in TensorFlow's graph, weight's shape) for each convolution.
local function each_convolution(model, take)
  local places = { Conv2d_1a_3x3 = "conv", Conv2d_2a_3x3 = "conv_1", Conv2d_2b_3x3 = "conv_2", Conv2d_3b_1x1 = "conv_3",
    Conv2d_4a_3x3 = "conv_4" }
  local blocks = { "5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c" }
  for k, name in ipairs(blocks) do places["Mixed_" .. name] = k == 1 and "mixed" or "mixed_" .. k - 1 end
  for name, field in pairs(model) do
    if module.is_module(field) and field.spec then take(name, places[name], field.weight.shape)
    elseif module.is_module(field) then
      for part, convolution in pairs(field) do
        if module.is_module(convolution) then
          take(name .. "." .. part, places[name] .. "/" .. convolution.spec.graph, convolution.weight.shape)
        end
      end
    end
  end
end

--- All tensors of a model's formula weights by their public names, and the places of the convolutions.
function M.tensors(model)
  local all, places = {}, {}
  each_convolution(model, function(name, place, shape)
    places[name] = place
    all[name .. ".conv.weight"] = tensor_of(name .. ".conv.weight", shape)
    for _, part in ipairs { "weight", "bias", "running_mean", "running_var" } do
      all[name .. ".bn." .. part] = tensor_of(name .. ".bn." .. part, { shape[1] })
    end
  end)
  all["fc.weight"], all["fc.bias"] = tensor_of("fc.weight", { 1008, 2048 }), tensor_of("fc.bias", { 1008 })
  return all, places
end

--- As PyTorch's file.
function M.save_pytorch(path, all) pytorch.save(path, all) end

-- ---- as TensorFlow's graph ----------------------------------------------------------------------------------------

local function varint(n)
  local out = {}
  repeat
    local digit = n % 128
    n = (n - digit) / 128
    out[#out + 1] = string.char(digit + (n > 0 and 128 or 0))
  until n == 0
  return table.concat(out)
end

--- A field with content: a text, or the bytes before and after a tensor's elements.
function M.field(number, content) return varint(number * 8 + 2) .. varint(#content) .. content end

local field = M.field

--- A node of a constant. `packed`: its numbers as float_val, not as content.
function M.constant(name, t, packed)
  local dims = ""
  for _, n in ipairs(t.shape) do dims = dims .. field(2, varint(8) .. varint(n)) end
  local bytes = ffi.string(tensor.to_host(t), t:bytes())
  local value = varint(8) .. varint(1) .. field(2, dims) .. field(packed and 5 or 4, bytes)
  local attribute = field(1, "value") .. field(2, field(8, value))
  local dtype = field(1, "dtype") .. field(2, varint(6 * 8) .. varint(1))
  return field(1, field(1, name) .. field(2, "Const") .. field(5, dtype) .. field(5, attribute))
end

--- A node of another kind, with a name as input.
function M.node(name, kind, input) return field(1, field(1, name) .. field(2, kind) .. field(3, input)) end

function M.save_graph(path, all, places)
  local file = assert(io.open(path, "wb"))
  file:write(M.node("DecodeJpeg/contents", "Const", ""))
  for name, place in pairs(places) do
    local weight = all[name .. ".conv.weight"]:permute({ 3, 4, 2, 1 }):contiguous()
    file:write(M.constant(place .. "/conv2d_params", weight))
    local norm = { gamma = "weight", beta = "bias", moving_mean = "running_mean", moving_variance = "running_var" }
    for theirs, part in pairs(norm) do
      file:write(M.constant(place .. "/batchnorm/" .. theirs, all[name .. ".bn." .. part], true))
    end
    file:write(M.node(place, "Relu", place .. "/batchnorm"))
  end
  file:write(M.constant("softmax/weights", all["fc.weight"]:transpose(1, 2):contiguous()))
  file:write(M.constant("softmax/biases", all["fc.bias"], true))
  file:close()
end

return M
