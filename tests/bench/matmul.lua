--- Speed of matmul at the sizes of SiT-S/2 (batch 16, 256 tokens) and of a small model, forward and backward, beside
--- oneDNN's own threaded dnnl_sgemm where that library is installed: both in turn, the best of 30 runs each.
---
---   perigee run tests/bench/matmul.lua [bfloat16]
local ffi = require "ffi"
local core = require "perigee.core"
local door = require "perigee.core.ffi"

local onednn = require "tests.bench.onednn"
local ops, program, tensor = core.ops, core.program, core.tensor
local dtype = arg and arg[1] == "bfloat16" and "bfloat16" or "float32"
local RUNS = 30

local function random(shape)
  local array = onednn.random(shape[1] * shape[2])
  return tensor.tensor(array, shape, "float32"), array
end

local function measure(name, transpose_a, transpose_b, m, n, k)
  local a, a_data = random(transpose_a and { k, m } or { m, k })
  local b, b_data = random(transpose_b and { n, k } or { k, n })
  local p = program.new "bench"
  local x, y = p:input("a", a.shape, dtype), p:input("b", b.shape, dtype)
  local out = ops.matmul(x, y, { transpose_a = transpose_a, transpose_b = transpose_b })
  local exe = core.executable.compile(p, { { name = "out", value = out } })
  local inputs, c_data = { a = a:to(dtype), b = b:to(dtype) }, ffi.new("float[?]", m * n)
  local ours, theirs = math.huge, math.huge
  for _ = 1, RUNS do
    ours = math.min(ours, onednn.seconds(function() exe:run(inputs) end))
    if onednn.found then
      theirs = math.min(theirs, onednn.seconds(function()
        onednn.product(transpose_a, transpose_b, m, n, k, a_data, b_data, c_data)
      end))
    end
  end
  local work = 2 * m * n * k * 1e-9
  print(("%-20s %5d x %5d x %5d  %7.1f GFLOP/s   dnnl_sgemm (float32) %7.1f   ratio %.2f"):format(name, m, n, k,
    work / ours, work / theirs, theirs / ours))
  exe:free()
end

print(("%s, %d threads, %s, %s"):format(dtype, door.C.pg_threads(), ffi.string(door.C.pg_cpu_name()),
  ffi.string(door.C.pg_cpu_isa())))
for _, layer in ipairs {
  { "S/2 qkv", 4096, 384, 1152 }, { "S/2 projection", 4096, 384, 384 }, { "S/2 mlp in", 4096, 384, 1536 },
  { "S/2 mlp out", 4096, 1536, 384 }, { "S/2 modulation", 16, 384, 2304 }, { "small qkv", 1024, 128, 384 },
  { "small mlp in", 1024, 128, 512 }, { "small mlp out", 1024, 512, 128 }, { "one row", 1, 384, 2304 },
} do
  local name, rows, width, out = unpack(layer)
  measure(name .. " forward", false, true, rows, out, width)
  measure(name .. " dX", false, false, rows, width, out)
  measure(name .. " dW", true, false, out, width, rows)
end
