--- Ops whose shapes depend on the numbers in a tensor: places and elements that are
--- not 0. Not in a trace.
local ffi = require "ffi"
local core = require "perigee.core.ffi"
local layout = require "perigee.core.layout"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"
local tensor = require "perigee.core.tensor"

local fail = op.fail

local function expect(name, x, instead)
  op.expect(name, x)
  if program.of(x) then fail("%s: how many there are is not known in a trace; write %s", name, instead) end
end

--- The places, from 0, of the elements that are not 0, in row-major order: int64 [count, dimensions of x].
local function nonzero(x)
  expect("nonzero", x, "ops.where(mask, x, 0)")
  local array, n = tensor.to_host(ops.truth(x))
  local packed, dims, found = layout.packed(x.shape), #x.shape, {}
  for k = 0, n - 1 do
    if array[k] ~= 0 then found[#found + 1] = k end
  end
  local places = ffi.new("int64_t[?]", math.max(#found * dims, 1))
  for row, k in ipairs(found) do
    for d = 1, dims do
      places[(row - 1) * dims + d - 1] = math.floor(k / packed[d]) % x.shape[d]
    end
  end
  return tensor.tensor(places, { #found, dims }, "int64"):to(x.device)
end

--- The elements of x where the mask is not 0, in row-major order, in one dimension. x and mask broadcast.
local function masked_select(x, mask)
  expect("masked_select", x, "x:masked_fill(mask, 0)")
  expect("masked_select", mask, "x:masked_fill(mask, 0)")
  local shape = layout.broadcast(x.shape, mask.shape)
    or fail("masked_select: %s and the mask %s do not broadcast", core.shape_text(x.shape), core.shape_text(mask.shape))
  local places = nonzero(ops.reshape(ops.expand(ops.truth(mask), shape), { -1 }))
  return ops.index_select(ops.reshape(ops.expand(x, shape), { -1 }), 1, ops.reshape(places, { -1 }))
end

return {
  nonzero = nonzero, masked_select = masked_select,
  methods = { nonzero = nonzero, masked_select = masked_select },
}
