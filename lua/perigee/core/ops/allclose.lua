--- Whether two tensors hold the same numbers, up to a tolerance.
local op = require "perigee.core.op"
local ops = require "perigee.core.ops"
local program = require "perigee.core.program"

--- True where |a − b| <= absolute + relative·|b| for all elements: a boolean of Lua's. NaN is close to nothing, unless
--- options.nan says so.
---@param options? { relative?: number, absolute?: number, nan?: boolean }  1e-5, 1e-8, false
---@return boolean
local function allclose(a, b, options)
  local o = op.options("allclose", options, { relative = 1e-5, absolute = 1e-8, nan = false })
  op.expect("allclose", a)
  op.expect("allclose", b)
  if program.of(a) or program.of(b) then
    op.fail "allclose: a symbolic value has no numbers in a trace; use it on results"
  end
  a, b = ops.cast(a, "float64"), ops.cast(b, "float64")
  local close = ops.less_equal(ops.abs(ops.sub(a, b)), ops.affine(ops.abs(b), o.relative, o.absolute))
  close = ops.logical_and(close, ops.isfinite(b))
  close = ops.logical_or(close, ops.equal(a, b)) -- infinities
  if o.nan then close = ops.logical_or(close, ops.logical_and(ops.isnan(a), ops.isnan(b))) end
  return ops.all(close):item() == 1
end

return { allclose = allclose, methods = { allclose = allclose } }
