--- Machines that a plan is priced on. Accelerators by their makers' dense peaks; the processor and the GPU at hand by
--- short measurements, made once.
local ffi = require "ffi"
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local device = require "perigee.core.device"
local ops, tensor = core.ops, core.tensor

local C = core_ffi.C
local M = {}

-- FLOP/s by dtype and bytes/s, from NVIDIA's data sheets (dense; float32 without TF32); bytes as the driver gives them.
local accelerators = {
  a100 = { name = "A100 SXM 80 GB", bfloat16 = 312e12, float32 = 19.5e12, float64 = 9.7e12, bandwidth = 2.039e12,
           memory = 81920 * 2 ^ 20 },
  h100 = { name = "H100 SXM", bfloat16 = 989e12, float32 = 67e12, float64 = 34e12, bandwidth = 3.35e12,
           memory = 81559 * 2 ^ 20 },
  h200 = { name = "H200 SXM", bfloat16 = 989e12, float32 = 67e12, float64 = 34e12, bandwidth = 4.8e12,
           memory = 143771 * 2 ^ 20 },
}

local REPEATS, LONG = 6, 1e-3 -- seconds: a call of that length is measured well by a GPU's clock
local CHAIN = { cpu = 1, cuda = 10 } -- calls in a row: a GPU's clock sinks under load

--- Seconds that an op of two tensors of random numbers (a GPU is faster where all are equal) takes, by the device's own
--- clock: the best of a few runs.
local function seconds_of(op, where, shape, dtype)
  return tensor.tidy(function()
    local p, inputs = core.program.new "rate", {}
    for seed, name in ipairs { "a", "b" } do
      inputs[name] = ops.random_normal(shape,
        { state = tensor.tensor({ seed, 0, 0 }, "int64"):to(where), purpose = "rate", dtype = dtype })
    end
    local result, b = p:input("a", shape, dtype), p:input("b", shape, dtype)
    for _ = 1, CHAIN[where] do result = op(result, b) end
    local executable = core.executable.compile(p, { { name = "result", value = result } }, { device = where })
    local best = math.huge
    for _ = 1, REPEATS do
      local seconds = 0
      for _, row in ipairs(executable:profile(inputs)) do seconds = seconds + row.seconds end
      best = math.min(best, seconds / CHAIN[where])
    end
    executable:free()
    return best
  end)
end

--- FLOP/s of a matmul of two n×n matrices; n is doubled up to `most` while a product is too short to be measured.
local function matmul_rate(where, dtype, n, most)
  local seconds = seconds_of(ops.matmul, where, { n, n }, dtype)
  if n < most and seconds < LONG then return matmul_rate(where, dtype, 2 * n, most) end
  return 2 * n ^ 3 / seconds
end

--- Bytes/s of a sum of two vectors of `count` float32, doubled likewise.
local function bandwidth(where, count, most)
  local seconds = seconds_of(ops.add, where, { count }, "float32")
  if count < most and seconds < LONG then return bandwidth(where, 2 * count, most) end
  return 3 * 4 * count / seconds
end

local VECTOR, MATRIX = 16 * 2 ^ 20, 1024 -- numbers: larger than a processor's caches
local GPU_VECTOR, GPU_MATRIX = 64 * 2 ^ 20, 8192

--- This processor, at the current number of threads.
local function processor()
  local rate = matmul_rate("cpu", "float32", MATRIX, MATRIX)
  return {
    name = ffi.string(C.pg_cpu_name()), threads = C.pg_threads(), float32 = rate, float64 = rate / 8,
    bfloat16 = matmul_rate("cpu", "bfloat16", MATRIX, MATRIX), bandwidth = bandwidth("cpu", VECTOR, VECTOR),
    processor = true,
  }
end

--- The GPU at hand, which computes in no float64.
local function gpu()
  device.choose "cuda"
  return {
    name = device.description "cuda", threads = C.pg_threads(),
    float32 = matmul_rate("cuda", "float32", 128, GPU_MATRIX),
    bfloat16 = matmul_rate("cuda", "bfloat16", 128, GPU_MATRIX),
    bandwidth = bandwidth("cuda", 2 ^ 16, GPU_VECTOR),
  }
end

local at_hand, measured = { cpu = processor, cuda = gpu }, {}

function M.find(name)
  if not at_hand[name] then
    return accelerators[name] or core_ffi.fail("--device %s: expected cpu, cuda, a100, h100 or h200", tostring(name))
  end
  local known, tf32 = measured[name], C.pg_tf32()
  if not known or known.threads ~= C.pg_threads() or known.tf32 ~= tf32 then
    known = at_hand[name]()
    measured[name], known.tf32 = known, tf32
  end
  return known
end

--- FLOP/s of an op's definition in a dtype, at most. On a processor most ops compute in float32 what is bfloat16.
function M.rate(on, definition, dtype)
  if on.processor and dtype == "bfloat16" and not definition.multiplies_bfloat16 then return on.float32 end
  return on[dtype]
end

--- Roofline time of a list of calls: each takes the longer of its arithmetic and its traffic.
function M.seconds(on, calls, dtype)
  local total = 0
  for _, call in ipairs(calls) do
    local definition = call.node.definition
    local rate = M.rate(on, definition, dtype) * (on.processor and definition.rate_share or 1)
    total = total + math.max(call.flops / rate, call.bytes / on.bandwidth)
  end
  return total
end

return M
