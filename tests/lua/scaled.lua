--- Students and recipes as small as they get, for tests of what a run trains.
local expect = require "tests.lua.expect"
local pg = require "perigee"

local nn = pg.nn
local M = {}

local Scaled = nn.class "scaled"

--- A student of one scale and whatever `build(self)` adds; `use(self, x, t, y)` makes of x what is scaled.
function Scaled:build(build, use)
  self.channels, self.size, self.classes, self.null_label = 3, { 4, 4 }, 3, 3
  self.scale = nn.parameter({ 3, 1, 1 }, nn.initialise.ones)
  if build then build(self) end
  self.use = use or function(_, x) return x end
end
function Scaled:forward(x, t, y) return self:use(x, t, y) * self.scale end
function Scaled:drop_labels(y) return y end

M.denoise = pg.loss.flow_matching()

--- A recipe of a student, with fields of the recipe in `changes`.
function M.recipe(student, changes)
  local all = {
    name = "scaled", student = student, ema = 0.9, optim = pg.optim.adamw { lr = 1e-2, decay = 0.5 },
    data = pg.data.dataset {
      name = "pictures", classes = 3, channels = 3, height = 4, width = 4, batch = 2,
      find = function()
        return 4, { images = { tensor = pg.full({ 4, 4, 4, 3 }, 100, "uint8") },
          labels = { tensor = pg.zeros({ 4 }, "int64") } }
      end,
    },
    stages = { { name = "train", losses = { { 1, M.denoise } }, finish = pg.stop.at_step(3) } },
  }
  for key, value in pairs(changes or {}) do all[key] = value end
  return pg.recipe(all)
end

function M.loss(name, compute, more)
  local all = { name = name, compute = compute }
  for key, value in pairs(more or {}) do all[key] = value end
  return pg.loss.custom(all)
end

function M.stage(name, ...)
  local losses = {}
  for k, loss in ipairs { ... } do losses[k] = { 1, loss } end
  return { name = name, losses = losses, finish = pg.stop.at_step(3) }
end

--- Training and pricing must refuse a recipe, and the message have these texts in it.
function M.refused(recipe, ...)
  expect.fails(function() pg.train.train(recipe, { quiet = true }) end, ...)
  expect.fails(function() require("perigee.cost.price").recipe(recipe) end, ...)
end

M.student = Scaled

return M
