--- Speed of matmul at the sizes of SiT-S/2 (batch 16, 256 tokens) and of a small model, forward and backward, beside
--- oneDNN's own threaded dnnl_sgemm where that library is installed: both in turn, the best of 30 runs each.
---
---   perigee run tests/bench/matmul.lua [bfloat16]
local ffi = require "ffi"
local core = require "perigee.core"
local door = require "perigee.core.ffi"

local ops, program, tensor = core.ops, core.program, core.tensor
local dtype = arg and arg[1] == "bfloat16" and "bfloat16" or "float32"
local RUNS = 30

ffi.cdef [[int dnnl_sgemm(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
  int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);]]

local function library()
  for _, name in ipairs { "libdnnl.so.3", "libdnnl.so.2", "libdnnl.so" } do
    local found, lib = pcall(ffi.load, name)
    if found then return lib end
  end
end
local dnnl = library()

local function random(shape)
  local n = shape[1] * shape[2]
  local array = ffi.new("float[?]", n)
  for k = 0, n - 1 do array[k] = math.random() - 0.5 end
  return tensor.tensor(array, shape, "float32"), array
end

local function seconds(body)
  local start = door.C.pg_clock_seconds()
  body()
  return door.C.pg_clock_seconds() - start
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
    ours = math.min(ours, seconds(function() exe:run(inputs) end))
    if dnnl then
      theirs = math.min(theirs, seconds(function()
        dnnl.dnnl_sgemm(transpose_a and 84 or 78, transpose_b and 84 or 78, m, n, k, 1, a_data, a.shape[2], b_data,
          b.shape[2], 0, c_data, n)
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
