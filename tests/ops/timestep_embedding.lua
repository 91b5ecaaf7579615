local op = require "perigee.core.op"
local tensor = require "perigee.core.tensor"

local cases = {}
for _, case in ipairs { { 1, 2 }, { 3, 33 }, { 2, 256 }, { 2, 1 } } do
  local batch, width = case[1], case[2]
  cases[#cases + 1] = {
    name = ("timestep_embedding %d, width %d"):format(batch, width),
    run = function(ops, t)
      return ops.timestep_embedding(t:to(op.stat(t.dtype)), { width = width, dtype = t.dtype })
    end,
    inputs = { { shape = { batch }, range = { 0, 1 } } },
    reference = function(_, t)
      local rows, half = {}, math.floor(width / 2)
      for b, time in ipairs(t:totable()) do
        rows[b] = {}
        for k = 1, width do rows[b][k] = 0 end
        for k = 0, half - 1 do
          local angle = time * 10000 ^ (-k / half)
          rows[b][k + 1], rows[b][half + k + 1] = math.cos(angle), math.sin(angle)
        end
      end
      return tensor.tensor(rows, t.dtype)
    end,
    tolerance = { float32 = 1e-6, float64 = 1e-12, bfloat16 = 1e-2 },
  }
end
return cases
