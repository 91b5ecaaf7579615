-- Pictures without their high frequencies: against the complex transform written out, and as what a teacher sees.
local low_pass = require "perigee.nn.low_pass"
local message_of = require("tests.lua.expect").message_of
local pg = require "perigee"
local tiny = require "tests.lua.tiny"

--- The discrete Fourier transform of a picture, its frequencies above `keep` taken out, and back: all by sums.
local function by_sums(picture, keep)
  local rows, columns, result = #picture, #picture[1], {}
  local function folded(k, n) return math.min(k, n - k) end
  for r = 1, rows do
    result[r] = {}
    for c = 1, columns do result[r][c] = 0 end
  end
  for u = 0, rows - 1 do
    for v = 0, columns - 1 do
      if (2 * folded(u, rows) / rows) ^ 2 + (2 * folded(v, columns) / columns) ^ 2 <= keep * keep then
        local real, imaginary = 0, 0
        for r = 0, rows - 1 do
          for c = 0, columns - 1 do
            local angle = -2 * math.pi * (u * r / rows + v * c / columns)
            real = real + picture[r + 1][c + 1] * math.cos(angle)
            imaginary = imaginary + picture[r + 1][c + 1] * math.sin(angle)
          end
        end
        for r = 0, rows - 1 do
          for c = 0, columns - 1 do
            local angle = 2 * math.pi * (u * r / rows + v * c / columns)
            result[r + 1][c + 1] = result[r + 1][c + 1]
              + (real * math.cos(angle) - imaginary * math.sin(angle)) / (rows * columns)
          end
        end
      end
    end
  end
  return result
end

local function random(shape, dtype)
  return pg.ops.random_uniform(shape, { state = pg.tensor({ 3, 0, 0 }, "int64"), purpose = "pictures",
    dtype = dtype or "float64" })
end

describe("a low-passed picture", function()
  it("is the transform's without the high frequencies, on even and odd sides", function()
    for _, size in ipairs { { 8, 6 }, { 7, 9 }, { 1, 5 } } do
      local images = random { 2, 3, size[1], size[2] }
      for _, keep in ipairs { 0, 0.3, 0.5, 0.75, 1 } do
        local found = low_pass.low_pass(images, keep):totable()
        local given = images:totable()
        for image = 1, 2 do
          local expected = by_sums(given[image][2], keep)
          for r = 1, size[1] do
            for c = 1, size[2] do assert.near(expected[r][c], found[image][2][r][c], 1e-12) end
          end
        end
      end
    end
  end)

  it("is that of the samples whose times are in the interval", function()
    local images = random({ 4, 1, 6, 6 }, "float32")
    local t = pg.tensor({ 0.1, 0.25, 0.6, 0.9 }, "float32")
    local found = low_pass.at_times(images, 0.3, t, { 0.25, 0.75 })
    local low = low_pass.low_pass(images, 0.3)
    for k = 1, 4 do
      local expected = (k == 2 or k == 3) and low or images
      assert.same(expected:narrow(1, k, 1):totable(), found:narrow(1, k, 1):totable())
    end
    assert.is_true((low - images):abs():max():item() > 0.01)
  end)
end)

describe("a teacher that sees low-passed pictures", function()
  local function losses(low)
    local recipe = tiny.recipe {}
    recipe.teachers[1].model.low_pass = low
    local run = require("perigee.train").train(recipe, { steps = 1, quiet = true })
    local found = { denoise = run.losses.denoise, features = run.losses.features, attention = run.losses.attention }
    run:free()
    return found
  end

  it("changes the alignment's losses at these times, and no other", function()
    local plain, low = losses(nil), losses { keep = 0.2, times = { 0, 1 } }
    local never = losses { keep = 0.2, times = { 0, 0 } }
    assert.equal(plain.denoise, low.denoise)
    assert.is_true(math.abs(plain.features - low.features) > 1e-4)
    assert.is_true(math.abs(plain.attention - low.attention) > 1e-5)
    assert.same(plain, never)
  end)

  it("is refused with a cache, and with settings that are none", function()
    local recipe = tiny.recipe {}
    local function vit(low)
      return pg.models.vit { depth = 2, width = 16, heads = 2, patch = 4, image = 16, low_pass = low }
    end
    assert.matches("what the teacher vit sees depends on the time (low_pass); use cache_teacher = false", message_of(
      pg.recipe, { name = "x", student = recipe.student, data = recipe.data, cache_teacher = true,
        teacher = vit { keep = 0.5 }, stages = recipe.stages }), 1, true)
    assert.matches("vit.low_pass: option 'keep' is", (message_of(vit, { keep = 1.5 })), 1, true)
    assert.matches("vit.low_pass: option 'times' is", (message_of(vit, { keep = 1, times = { 0.5 } })), 1, true)
  end)
end)
