--- Perigee's library as recipes, scripts and the REPL see it: `local pg = require "perigee"`.
--- Parts are loaded when first used.
local core = require "perigee.core"
local tensor, ops = core.tensor, core.ops

---@alias perigee.Dtype "float32"|"float64"|"bfloat16"|"int32"|"int64"|"uint8"

---@class perigee: perigee.create
---@field version string
---@field nn table                 modules: linear, layernorm, attention, mlp, ... (lua/perigee/nn/)
---@field models perigee.models
---@field loss perigee.losses
---@field stop perigee.stops
---@field signal perigee.signals
---@field data perigee.data
---@field optim perigee.optim
---@field path perigee.paths
---@field time perigee.times
---@field weighting perigee.weightings
---@field schedule perigee.schedules
---@field sampler perigee.samplers
---@field train perigee.training
---@field recipe fun(given: perigee.RecipeOptions): perigee.Recipe
---@field ops table                every op: pg.ops.where, pg.ops.gather, ... (lua/perigee/core/ops/)
local pg = { version = require("ffi").string(require("perigee.core.ffi").C.pg_version()) }

-- tensors: pg.tensor { ... }, pg.zeros, pg.randn, ... (lua/perigee/core/create.lua)
for name, make in pairs(require "perigee.core.create") do pg[name] = make end
pg.tidy, pg.print_options = tensor.tidy, require("perigee.core.print").options

---@return boolean
function pg.is_tensor(x) return tensor.is_tensor(x) end

pg.ops, pg.grad, pg.compile = ops, core.grad, core.compile

-- files

--- One tensor, .npy or .png, or a table of tensors by name, .safetensors, by the ending of the path
--- (lua/perigee/io/tensors.lua).
---@param path string
---@return perigee.Tensor|table<string, perigee.Tensor>
function pg.load(path) return require("perigee.io.tensors").load(path) end

---@param path string
---@param what perigee.Tensor|table<string, perigee.Tensor>
---@param metadata? table<string, string>  texts, for .safetensors
function pg.save(path, what, metadata) return require("perigee.io.tensors").save(path, what, metadata) end

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

-- pictures

--- Lines of numbers as a PNG (lua/perigee/plot/chart.lua): pg.plot { y }, pg.plot { x, y, path = "loss.png" },
--- pg.plot { { x, y, label = "a" }, ... }. Returns the path.
---@param given perigee.PlotOptions
---@return string
function pg.plot(given) return require("perigee.plot.chart").plot(given) end

--- A tensor as a PNG, scaled and enlarged (lua/perigee/plot/picture.lua): [H,W], [H,W,3], [3,H,W], or a grid of
--- several, [N,...]. Returns the path.
---@param x perigee.Tensor
---@param path? string
---@param options? perigee.ShowOptions
---@return string
function pg.show(x, path, options) return require("perigee.plot.picture").show(x, path, options) end

tensor.methods.save = function(t, path) return pg.save(path, t) end

--- A recipe's own options, which are the command's flags: a list of { "name", default, "help" }, or entries by name,
--- name = { default = ..., help = ..., type = ..., choices = ..., min = ..., max = ... }. Returns the values by name.
---@param declaration table
---@return table<string, any>
function pg.options(declaration) return require("perigee.recipe.options").declare(declaration) end

local parts = {
  recipe = "perigee.recipe", train = "perigee.train",
  nn = "perigee.nn", models = "perigee.models", data = "perigee.data", optim = "perigee.optim",
  loss = "perigee.losses", path = "perigee.paths", time = "perigee.times",
  weighting = "perigee.weightings", schedule = "perigee.schedules", stop = "perigee.stops",
  signal = "perigee.signals", sampler = "perigee.samplers",
}

return setmetatable(pg, {
  __index = function(_, key)
    local name = parts[key]
    if not name then
      require("perigee.core.ffi").fail("perigee has no part '%s'%s", tostring(key),
        require("perigee.core.torch").part(tostring(key), pg, parts, ops))
    end
    local part = require(name)
    rawset(pg, key, part)
    return part
  end,
})
