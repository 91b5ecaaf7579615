-- perigee inspect, import, export: the road of public weights, in and out.
local core = require "perigee.core.ffi"
local files = require "perigee.io.files"
local pytorch = require "perigee.io.pytorch"
local safetensors = require "perigee.io.safetensors"
local tiny = require "tests.lua.tiny"

local FIXTURES = core.home .. "/tests/oracle/fixtures/"

local recipe = [[
local pg = require "perigee"
local o = pg.options { { "start", "", "weights to start from" }, { "ends", 1, "the last step" } }
return pg.recipe {
  name = "tiny", ema = 0.5,
  student = pg.models.sit { depth = 1, width = 16, heads = 2, size = { 4, 6 }, channels = 4, classes = 3,
    weights = o.start ~= "" and o.start or nil },
  data = pg.data.dataset { name = "zeros", classes = 3, channels = 4, height = 4, width = 6, batch = 2,
    find = function()
      local images, labels = pg.zeros({ 2, 4, 6, 4 }, "uint8"), pg.tensor({ 0, 1 }, "int64")
      return 2, { images = { tensor = images }, labels = { tensor = labels } }
    end },
  stages = { { name = "train", losses = { { 1, pg.loss.flow_matching() } }, finish = pg.stop.at_step(o.ends) } },
  optim = pg.optim.adamw { lr = 1e-9 }, every = { checkpoint = 1 },
}
]]

describe("the commands of weights", function()
  local in_folder = dofile(core.home .. "/tests/lua/folder.lua")(setup, teardown)

  --- Runs a command in whose text @ stands for the folder and % for the fixtures; it must succeed.
  local function perigee(text, expected)
    local status, output = tiny.perigee((text:gsub("@", in_folder()):gsub("%%", FIXTURES)))
    assert.equal(expected or 0, status, output)
    return output
  end

  local function says(text, part)
    assert.is_truthy(text:find(part, 1, true), ("'%s' is not in: %s"):format(part, text))
  end

  setup(function() files.write(in_folder "tiny.lua", recipe) end)

  it("inspect says what a file holds", function()
    local text = perigee "inspect %pytorch/sit_official.pt"
    for _, part in ipairs { "a PyTorch file, 44 tensors of 21504 numbers", "it is the official SiT (names sit)",
      "it has weights under 'ema' and 'model'; 'ema' is taken", "args.learn_sigma = true",
      "model.x_embedder.proj.weight                 F32      [16,4,2,2]" } do says(text, part) end
    says(perigee "inspect %vit_dinov2_tiny.weights.safetensors --no-tensors", "it is DINOv2 as its authors release it")
    says(perigee "inspect %pytorch/torchscript.pt", "a TorchScript archive, 4 tensors of 11 numbers")
    says(perigee("inspect %pytorch/module.pt", 1), "torch.nn.modules.linear.Linear, which is not read")
  end)

  it("import, train from it, export: the weights come back", function()
    local text = perigee("import %pytorch/sit_official.pt @/in.safetensors --as sit --take ema --set depth=1"
      .. " --set width=16 --set heads=2 --set size=4x6")
    says(text, "the official SiT (names sit)")
    says(text, "it has weights under 'ema' and 'model'; 'ema' is taken")
    perigee "train @/tiny.lua --runs @/runs --quiet --start @/in.safetensors"
    perigee "export @/runs/tiny @/out.pt --as sit"
    local given, made = pytorch.open(FIXTURES .. "pytorch/sit_official.pt"), pytorch.open(in_folder "out.pt")
    assert.equal(1, made.value:get "steps")
    for _, part in ipairs { "ema.", "model." } do -- a learning rate of 1e-9 leaves both where they began
      for _, name in ipairs(given.names) do
        local rest = name:match "^ema%.(.+)$"
        if rest and not rest:find("final_layer.linear", 1, true) then
          local a, b = given:read(name), made:read(part .. rest)
          assert.is_true((a - b):abs():max():item() < 1e-6, rest)
        end
      end
    end
    files.rename(in_folder "in.safetensors", in_folder "gone.safetensors") -- a run that goes on needs it no more
    perigee "train @/tiny.lua --runs @/runs --quiet --resume --start @/in.safetensors --ends 2"
    local _, output = tiny.perigee(("train %s/tiny.lua --runs %s/other --quiet --start %s/in.safetensors"):format(
      in_folder(), in_folder(), in_folder()))
    says(output, "in.safetensors: weights file not found")
    says(perigee "inspect @/out.pt", "it is the official SiT (names sit)") -- which it says itself
    perigee "export @/runs/tiny @/out.safetensors --as repa"
    local repa = safetensors.open(in_folder "out.safetensors")
    assert.same({ names = "repa", recipe = "tiny", step = "2", weights = "ema" }, repa.metadata)
    assert.same({ 16, 16 }, repa:info("final_layer.linear.weight").shape)
    says(perigee "inspect @/out.safetensors", "it is SiT as REPA and HASTE save it (names repa)")
  end)

  it("export writes the projectors that REPA's models have", function()
    perigee "train tests/lua/recipes/tiny.lua --runs @/runs --name aligned --quiet --steps 1 --checkpoint 1"
    perigee "export @/runs/aligned @/aligned.safetensors --as repa"
    local file = safetensors.open(in_folder "aligned.safetensors")
    assert.same({ 24, 32 }, file:info("projectors.0.0.weight").shape)
    assert.same({ 30, 24 }, file:info("projectors.0.4.weight").shape)
    assert.is_nil(file.entries["projectors.1.0.weight"])
  end)

  it("tell a DiT from a SiT, whose names are the same", function()
    files.write(in_folder "dit.lua", [[
      local pg = require "perigee"
      return pg.recipe { name = "dit", data = pg.data.shapes { batch = 2, count = 4 },
        student = pg.models.dit { depth = 1, width = 16, heads = 2, size = 32, patch = 8, channels = 3, classes = 8 },
        stages = { { name = "train", finish = pg.stop.at_step(1), losses = { { 1, pg.loss.variational_bound() },
          { 1, pg.loss.flow_matching { path = "diffusion", prediction = "noise" } } } } },
        sample = { count = 1, steps = 1 } }]])
    perigee "train @/dit.lua --runs @/runs --quiet"
    for _, names in ipairs { "sit", "repa" } do
      says(perigee("export @/runs/dit @/dit.pt --as " .. names, 1), "is a DiT, which predicts noise; give --as dit")
    end
    says(perigee("export @/runs/tiny @/dit.pt --as dit", 1), "is a SiT; give --as sit or --as repa")
    perigee "export @/runs/dit @/dit.pt --as dit"
    local options = " --set depth=1 --set width=16 --set heads=2 --set patch=8"
    local note = "does not compute the same function"
    says(perigee("import @/dit.pt @/sit.safetensors --as sit" .. options), note)
    assert.is_nil(perigee("import @/dit.pt @/dit.safetensors --as dit" .. options):find(note, 1, true))
  end)

  it("say what is wrong", function()
    says(perigee("import %pytorch/sit_official.pt @/x.safetensors --as sit_b_2", 1), "[1,256,768]")
    says(perigee("import %pytorch/sit_official.pt @/x.pt --as sit_b_2", 1), "weights are written as .safetensors")
    says(perigee("import %pytorch/sit_official.pt @/x.safetensors", 1), "needs --as MODEL")
    says(perigee("import %pytorch/views.pt @/x.safetensors --as sit_b_2", 1), "its names are in no known table")
    says(perigee("export @/runs/tiny @/x.pt --as timm", 1), "the student of")
    says(perigee("export @/runs/tiny @/x.pt --as sitt", 1), "unknown table of names 'sitt'")
    assert.is_nil(files.kind(in_folder "x.safetensors"))
    assert.is_nil(files.kind(in_folder "x.pt"))
  end)
end)
