--- Perigee's library as recipes, scripts and the REPL see it: `local pg = require "perigee"`.
--- Parts are loaded when first used.
local core = require "perigee.core"
local tensor, ops = core.tensor, core.ops

---@alias perigee.Dtype "float32"|"float64"|"bfloat16"|"int32"|"int64"|"uint8"

---@class perigee
---@field version string
---@field nn table                 modules: linear, layernorm, attention, mlp, ... (lua/perigee/nn/)
---@field models perigee.models
---@field loss perigee.losses
---@field stop perigee.stops
---@field signal perigee.signals
---@field data perigee.data
---@field optim perigee.optim
---@field time perigee.times
---@field sampler perigee.samplers
---@field train perigee.training
---@field recipe fun(given: perigee.RecipeOptions): perigee.Recipe
---@field ops table                every op: pg.ops.where, pg.ops.gather, ... (lua/perigee/core/ops/)
local pg = { version = require("ffi").string(require("perigee.core.ffi").C.pg_version()) }

-- tensors: pg.tensor(nested table | cdata, shape, dtype) and friends
pg.tensor, pg.empty, pg.tidy = tensor.tensor, tensor.empty, tensor.tidy

---@param shape integer[]
---@param value number
---@param dtype? perigee.Dtype
---@return perigee.Tensor
function pg.full(shape, value, dtype) return ops.fill(shape, { value = value, dtype = dtype or "float32" }) end

---@param shape integer[]
---@param dtype? perigee.Dtype
---@return perigee.Tensor
function pg.zeros(shape, dtype) return pg.full(shape, 0, dtype) end

---@param shape integer[]
---@param dtype? perigee.Dtype
---@return perigee.Tensor
function pg.ones(shape, dtype) return pg.full(shape, 1, dtype) end

--- first, first + step, ... up to but without `last`; of one number n: 0 ... n − 1.
---@param first number
---@param last? number
---@param step? number
---@param dtype? perigee.Dtype
---@return perigee.Tensor
function pg.arange(first, last, step, dtype)
  if not last then first, last = 0, first end
  step = step or 1
  return ops.arange(math.max(0, math.ceil((last - first) / step)), { start = first, step = step, dtype = dtype })
end

---@return boolean
function pg.is_tensor(x) return tensor.is_tensor(x) end

-- random tensors: reproducible, from one counter that pg.seed sets
local random = { seed = 0, count = 0 }
function pg.seed(seed) random.seed, random.count = seed, 0 end
local function draw(op)
  return function(shape, options)
    local state = tensor.tensor({ random.seed, random.count, 0 }, "int64")
    random.count = random.count + 1
    return op(shape, { state = state, purpose = "eager", dtype = options and options.dtype or "float32" })
  end
end
pg.randn, pg.rand = draw(ops.random_normal), draw(ops.random_uniform)

pg.ops, pg.grad, pg.compile = ops, core.grad, core.compile

-- files

--- A .npy file.
---@param path string
---@return perigee.Tensor
function pg.load(path) return require("perigee.io.npy").load(path) end

---@param path string
---@return table<string, perigee.Tensor>
function pg.load_safetensors(path) return require("perigee.io.safetensors").load(path) end

---@param path string
---@param tensors table<string, perigee.Tensor>
---@param metadata? table<string, string>
function pg.save_safetensors(path, tensors, metadata)
  return require("perigee.io.safetensors").save(path, tensors, metadata)
end

---@param path string
---@return perigee.Tensor  uint8 [H,W,3]
function pg.load_png(path) return require("perigee.io.png").load(path) end

---@param path string
---@param image perigee.Tensor  uint8 [H,W,3]
function pg.save_png(path, image) return require("perigee.io.png").save(path, image) end
tensor.methods.save = function(t, path) return require("perigee.io.npy").save(path, t) end

--- A recipe's own options, which are the command's flags: a list of { "name", default, "help" }, or entries by name,
--- name = { default = ..., help = ..., type = ..., choices = ..., min = ..., max = ... }. Returns the values by name.
---@param declaration table
---@return table<string, any>
function pg.options(declaration) return require("perigee.recipe.options").declare(declaration) end

local parts = {
  recipe = "perigee.recipe", train = "perigee.train",
  nn = "perigee.nn", models = "perigee.models", data = "perigee.data", optim = "perigee.optim",
  loss = "perigee.losses", time = "perigee.times", stop = "perigee.stops", signal = "perigee.signals",
  sampler = "perigee.samplers",
}

return setmetatable(pg, {
  __index = function(_, key)
    local name = parts[key]
    if not name then require("perigee.core.ffi").fail("perigee has no part '%s'", tostring(key)) end
    local part = require(name)
    rawset(pg, key, part)
    return part
  end,
})
