--- Other dtypes.
local dtypes = require "perigee.core.dtype"
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"

local cast_op = op.define {
  name = "cast",
  inputs = { "x" },
  options = { "dtype" },
  strided = true,
  instance = function() return "float32" end,
  shape = function(a) return { { a.x.shape, a.dtype } } end,
  vjp = function(n, dy) return { x = ops.cast(dy, n.x.dtype) } end,
  flops = function() return 0 end,
}

--- x in another dtype. Real numbers become integers by truncation; what does not fit takes the nearest value that does.
local function cast(x, dtype)
  op.expect("cast", x)
  if x.dtype == dtype then return x end
  return cast_op(x, { dtype = dtypes.named(dtype, "cast") })
end

return { cast = cast, methods = { cast = cast } }
