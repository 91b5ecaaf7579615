--- Machines that a plan is priced on. Accelerators by their makers' dense peaks; the processor at hand by two short
--- measurements, made once.
local core_ffi = require "perigee.core.ffi"
local core = require "perigee.core"
local ops, tensor = core.ops, core.tensor

local C = core_ffi.C
local M = {}

-- FLOP/s by dtype and bytes/s, from NVIDIA's data sheets (dense; float32 without TF32).
local accelerators = {
  a100 = { name = "A100 SXM 80 GB", bfloat16 = 312e12, float32 = 19.5e12, float64 = 9.7e12, bandwidth = 2.039e12 },
  h100 = { name = "H100 SXM", bfloat16 = 989e12, float32 = 67e12, float64 = 34e12, bandwidth = 3.35e12 },
  h200 = { name = "H200 SXM", bfloat16 = 989e12, float32 = 67e12, float64 = 34e12, bandwidth = 4.8e12 },
}

local function fastest(repeats, body)
  local best = math.huge
  for _ = 1, repeats do
    local start = C.pg_clock_seconds()
    body()
    best = math.min(best, C.pg_clock_seconds() - start)
  end
  return best
end

local measured

--- This processor: the rate of a square matmul and of a copy, at the current number of threads.
local function processor()
  local threads = C.pg_threads()
  if measured and measured.threads == threads then return measured end
  measured = tensor.tidy(function()
    local n = 1024
    local a, b = ops.fill({ n, n }, { value = 0.5, dtype = "float32" }), ops.fill({ n, n }, { value = 0.25, dtype = "float32" })
    local matmul = fastest(6, function() a:matmul(b):free() end)
    local big = ops.fill({ 16 * 2 ^ 20 }, { value = 1, dtype = "float32" })
    local other = big:clone()
    local copy = fastest(6, function() ops.add(big, other):free() end)
    local rate = 2 * n ^ 3 / matmul
    return {
      name = require("ffi").string(C.pg_cpu_name()), threads = threads, float32 = rate, bfloat16 = rate, float64 = rate / 8,
      bandwidth = 3 * 4 * big:numel() / copy, processor = true,
    }
  end)
  return measured
end

function M.find(name)
  if name == "cpu" then return processor() end
  return accelerators[name] or core_ffi.fail("--device %s: there are cpu, a100, h100 and h200", tostring(name))
end

-- What a processor reaches of its matmul rate in calls that are arithmetic but no matmul (exponentials, small tiles).
local share_of_rate = { attention = 0.75, attention_backward = 0.75, attention_aligned_backward = 0.6 }

--- Roofline time of a list of calls: each takes the longer of its arithmetic and its traffic.
function M.seconds(on, calls, dtype)
  local total = 0
  for _, call in ipairs(calls) do
    local rate = on[dtype] * (on.processor and share_of_rate[call.node.definition.name] or 1)
    total = total + math.max(call.flops / rate, call.bytes / on.bandwidth)
  end
  return total
end

return M
