--- Speed of the ops that memory bounds, at SiT-S/2's sizes (batch 16, 256 tokens, width 384), beside a copy and a sum
--- of two tensors in the same run. A call's bytes are its arguments and results, once each; the best of 40 runs counts.
---
---   perigee run tests/bench/memory_bound.lua [bfloat16]
local ffi = require "ffi"
local core = require "perigee.core"
local door = require "perigee.core.ffi"
local executable = require "perigee.core.executable"
local program = require "perigee.core.program"

local ops, tensor = core.ops, core.tensor
local dtype = arg and arg[1] == "bfloat16" and "bfloat16" or "float32"
local RUNS = 40

local function random(shape, of)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  local array = ffi.new("float[?]", n)
  for k = 0, n - 1 do array[k] = math.random() - 0.5 end
  return tensor.tensor(array, shape, "float32"):to(of or dtype)
end

--- Runs the program of body(values) (a list of results) and reports the calls of the ops named in `wanted`.
local function measure(wanted, shapes, body)
  local p, values, inputs, outputs = program.new "bench", {}, {}, {}
  for k, shape in ipairs(shapes) do
    local name = "input " .. k
    values[k], inputs[name] = p:input(name, shape, shape.dtype or dtype), random(shape, shape.dtype)
  end
  for k, v in ipairs { body(unpack(values)) } do outputs[k] = { name = "output " .. k, value = v } end
  local exe, best = executable.compile(p, outputs), {}
  for _ = 1, RUNS do
    for _, row in ipairs(exe:profile(inputs)) do
      if not best[row.op] or row.seconds < best[row.op].seconds then best[row.op] = row end
    end
  end
  for _, name in ipairs(wanted) do
    local row = best[name]
    print(("%-30s %8.0f µs %7.1f MB %7.1f GB/s"):format(name, row.seconds * 1e6, row.bytes / 2 ^ 20,
      row.bytes / row.seconds / 1e9))
  end
  exe:free()
end

--- f and its gradients with respect to the first `count` values; the last value is what flows in.
local function with_gradients(f, count)
  return function(...)
    local values = { ... }
    local seed = table.remove(values)
    local y, wrt = f(unpack(values)), {}
    for k = 1, count do wrt[k] = values[k] end
    return y, unpack(core.gradient(y.program, { y }, { seed }, wrt))
  end
end

local B, N, D = 16, 256, 384
local tokens, row, number = { B, N, D }, { B, 1, D }, { dtype = "float32" }
print(("%s [%d,%d,%d], %d threads, %s"):format(dtype, B, N, D, door.C.pg_threads(), ffi.string(door.C.pg_cpu_name())))
measure({ "copy" }, { tokens }, function(x) return ops.copy(x) end)
measure({ "add" }, { tokens, tokens }, function(x, y) return x + y end)
measure({ "layernorm_modulate", "layernorm_modulate_backward" }, { tokens, row, row, tokens },
  with_gradients(ops.layernorm_modulate, 3))
measure({ "layernorm", "layernorm_backward" }, { tokens, { D }, { D }, tokens },
  with_gradients(function(x, weight, bias) return ops.layernorm(x, { weight = weight, bias = bias }) end, 3))
measure({ "gated_residual", "gated_residual_backward" }, { tokens, row, tokens, tokens },
  with_gradients(ops.gated_residual, 3))
measure({ "feature_alignment", "feature_alignment_backward" }, { tokens, tokens, number },
  with_gradients(function(p, z) return ops.feature_alignment(p, ops.stop_gradient(z)) end, 1))
measure({ "mse", "mse_backward" }, { tokens, tokens, number }, with_gradients(ops.mse, 1))
measure({ "interpolant" }, { tokens, tokens, { B, dtype = "float32" } },
  function(x, noise, t) return ops.interpolant(x, noise, t) end)
measure({ "patchify" }, { { B, 3, 224, 224 } }, function(x) return ops.patchify(x, { patch = 16 }) end)
measure({ "resize" }, { { B, 3, 32, 32 } },
  function(x) return ops.resize(x, { size = { 224, 224 }, mode = "bicubic" }) end)
measure({ "resize", "resize_backward" }, { tokens, { B, 196, D } },
  with_gradients(function(x) return ops.resize_tokens(x, { from = { 16, 16 }, to = { 14, 14 } }) end, 1))
