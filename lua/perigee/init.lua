--- Perigee's library as recipes, scripts and the REPL see it: `local pg = require "perigee"`.
--- Parts are loaded when first used.
local core = require "perigee.core"
local tensor, ops = core.tensor, core.ops

---@class perigee
local pg = { version = require("ffi").string(require("perigee.core.ffi").C.pg_version()) }

-- tensors: pg.tensor(nested table | cdata, shape, dtype) and friends
pg.tensor, pg.empty, pg.tidy = tensor.tensor, tensor.empty, tensor.tidy
function pg.full(shape, value, dtype) return ops.fill(shape, { value = value, dtype = dtype or "float32" }) end
function pg.zeros(shape, dtype) return pg.full(shape, 0, dtype) end
function pg.ones(shape, dtype) return pg.full(shape, 1, dtype) end
function pg.arange(first, last, step, dtype) return ops.arange(first, last, step, { dtype = dtype }) end
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
function pg.load(path) return require("perigee.io.npy").load(path) end
function pg.load_safetensors(path) return require("perigee.io.safetensors").load(path) end
function pg.save_safetensors(path, tensors, metadata) return require("perigee.io.safetensors").save(path, tensors, metadata) end
function pg.load_png(path) return require("perigee.io.png").load(path) end
function pg.save_png(path, image) return require("perigee.io.png").save(path, image) end
tensor.methods.save = function(t, path) return require("perigee.io.npy").save(path, t) end

-- a recipe's own options, which are the command's flags
function pg.options(declaration) return require("perigee.recipe_options").declare(declaration) end

local parts = {
  nn = "perigee.nn", models = "perigee.models", loss = "perigee.losses", stop = "perigee.stops", signal = "perigee.signals",
  data = "perigee.data", sampler = "perigee.samplers", optim = "perigee.optim", time = "perigee.losses.time",
  recipe = "perigee.recipe", train = "perigee.train", metrics = "perigee.metrics",
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
