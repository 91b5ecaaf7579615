-- Every recipe that comes with Perigee: it loads without its data and weights, each stage can be traced, and all that
-- it has is trained, its sizes are the published ones; `perigee recipes` lists it.
local door = require "perigee.core.ffi"
local files = require "perigee.io.files"
local load = require("perigee.recipe.load").load
local parameters = require "perigee.stage.parameters"
local tiny = require "tests.lua.tiny"

local folder = door.home .. "/recipes"

-- students' parameters, in millions, as the papers round them
local PUBLISHED = {
  dit_xl_2 = 675, haste_dit_xl_2 = 675, sit_xl_2 = 675, repa_sit_xl_2 = 675, haste_sit_xl_2 = 675, haste_sit_b_2 = 130,
  haste_mmdit_coco = 505,
}

local function numbers_of(model)
  local count = 0
  for _, entry in ipairs(model:named_parameters()) do count = count + entry.tensor:numel() end
  return count
end

describe("recipes", function()
  local seen = {}
  for _, name in ipairs(files.list(folder)) do
    local own = name:match "^(.*)%.lua$"
    if own then
      it(own .. " loads and can be traced", function()
        local recipe = load(folder .. "/" .. name).value
        parameters.check(recipe:validate()) -- traces and differentiates every stage
        if PUBLISHED[own] then
          seen[own] = true
          local millions = numbers_of(recipe.student) / 1e6
          assert.is_true(math.abs(millions - PUBLISHED[own]) < 1, ("%s: %.2f million"):format(own, millions))
        end
      end)
    end
  end

  it("have the sizes of their papers", function()
    for name in pairs(PUBLISHED) do assert.is_true(seen[name], name) end
  end)

  it("are listed with their published results", function()
    local status, output = tiny.perigee "recipes"
    assert.equal(0, status)
    for _, name in ipairs(files.list(folder)) do
      if name:match "%.lua$" then assert.truthy(output:find("recipes/" .. name .. "\n  ", 1, true), name) end
    end
    assert.is_nil(output:find("no head comment", 1, true))
    assert.matches("recipes/haste_sit_xl_2.lua\n  HASTE [^\n]*\n  Published: FID 7.31", output)
    status, output = tiny.perigee "recipes docs"
    assert.equal(1, status)
    assert.matches("docs holds no recipe", output)
  end)
end)
