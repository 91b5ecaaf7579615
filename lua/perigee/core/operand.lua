--- The common part of tensors and symbolic values: one table of methods, properties, the arithmetic operators and
--- indexing. The ops fill `methods` (core/ops); the two classes only add what concerns storage or tracing.
local core = require "perigee.core.ffi"

local M = { methods = {}, properties = {} }

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
  class.__mod = function(a, b) return ops().remainder(a, b) end
  class.__unm = function(a) return ops().neg(a) end
  class.__concat = function()
    core.fail "text and a tensor joined by ..; write tostring(x), or x:item() for the number in it"
  end
  return class
end

--- PyTorch's fields that are computed here.
function M.properties.ndim(x) return #x.shape end
function M.properties.T(x) return ops().t(x) end

--- The value of x[key] where `key` is neither a field nor a method: an entry, a part, a property, or an error. `what`
--- is x's kind in words, `own` the methods of its class alone.
function M.missing(x, key, what, own)
  if type(key) ~= "string" then return require("perigee.core.index").read(x, key) end
  local property = M.properties[key]
  if property then return property(x) end
  core.fail("%s has no field or method '%s'%s", what, key, require("perigee.core.torch").method(key, M.methods, own))
end

--- x[key] = value.
function M.assign(x, key, value)
  if type(key) == "string" then core.fail("x.%s = ...: the fields of a tensor are read-only", key) end
  require("perigee.core.index").write(x, key, value)
end

return M
