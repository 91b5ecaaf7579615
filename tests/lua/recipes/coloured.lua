--- A classifier of pictures that are a colour each, learnt in a few steps.
local pg = require "perigee"

local function pictures(count, seed)
  return function()
    local state = pg.tensor({ seed, 0, 0 }, "int64")
    local noise, labels, base = pg.ops.random_uniform({ count, 8, 8, 3 },
      { state = state, purpose = "noise" }) * 60, {}, {}
    for k = 1, count do
      labels[k] = k % 3
      base[k] = { { { 0, 0, 0 } } }
      base[k][1][1][labels[k] + 1] = 180
    end
    return count, { images = { tensor = (noise + pg.tensor(base)):to "uint8", augment = true },
      labels = { tensor = pg.tensor(labels, "int64") } }
  end
end

local function data(count, seed)
  return pg.data.dataset { name = "coloured", classes = 3, channels = 3, height = 8, width = 8, batch = 12,
                           image_size = 8, find = pictures(count, seed) }
end

return pg.recipe {
  name    = "coloured",
  student = pg.models.vit { depth = 1, width = 16, heads = 2, patch = 4, image = 8, classes = 3 },
  data    = data(48, 1),
  test    = data(70, 2),
  optim   = pg.optim.adamw { lr = 1e-2 },
  ema     = 0.5,
  stages  = { { name = "classify", losses = { { 1.0, pg.loss.classification() } }, finish = pg.stop.at_step(30) } },
}
