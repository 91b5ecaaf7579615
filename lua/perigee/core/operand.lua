--- What tensors and symbolic values have in common: one table of methods, and the arithmetic operators. The ops fill
--- `methods` (core/ops); the two classes only add what concerns storage or tracing.
local M = { methods = {} }

local ops_module
local function ops()
  ops_module = ops_module or require "perigee.core.ops"
  return ops_module
end

--- The metatable of a class of operands, with every operator bound to its op.
function M.metatable(class)
  class.__add = function(a, b) return ops().add(a, b) end
  class.__sub = function(a, b) return ops().sub(a, b) end
  class.__mul = function(a, b) return ops().mul(a, b) end
  class.__div = function(a, b) return ops().div(a, b) end
  class.__pow = function(a, b) return ops().pow(a, b) end
  class.__unm = function(a) return ops().neg(a) end
  return class
end

return M
