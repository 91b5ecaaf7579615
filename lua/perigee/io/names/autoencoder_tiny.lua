-- diffusers' AutoencoderTiny. A half's layers are counted through, activations and upsampling included.
local rows = {
  what = "a tiny autoencoder (TAESD) as diffusers saves it",
  family = "autoencoder_tiny",
  -- more than either half's alone has, which fits such a file too
  marks = { "encoder.layers.0.weight", "encoder.layers.14.weight", "decoder.layers.0.weight",
    "decoder.layers.16.weight", "decoder.layers.18.weight" },
}

local function add(half, ours, layer, theirs)
  rows[#rows + 1] = { ("%s.%s.*"):format(half, ours), ("%s.layers.%d%s.*"):format(half, layer, theirs or "") }
end

local PARTS = { conv1 = ".conv.0", conv2 = ".conv.2", conv3 = ".conv.4", pool1 = ".pool.0", pool_norm = ".pool.1",
  pool2 = ".pool.3" }

local function add_blocks(half, stage, count, layer)
  for block = 1, count do
    for ours, theirs in pairs(PARTS) do
      add(half, ("stages.%d.blocks.%d.%s"):format(stage, block, ours), layer + block - 1, theirs)
    end
  end
end

add("encoder", "input", 0)
add_blocks("encoder", 1, 1, 1)
for stage = 2, 4 do
  add("encoder", ("stages.%d.downsample"):format(stage), 4 * stage - 6)
  add_blocks("encoder", stage, 3, 4 * stage - 5)
end
add("encoder", "output", 14)
add("decoder", "input", 0)
for stage = 1, 3 do
  add_blocks("decoder", stage, 3, 5 * stage - 3)
  add("decoder", ("stages.%d.upsample"):format(stage), 5 * stage + 1)
end
add_blocks("decoder", 4, 1, 17)
add("decoder", "output", 18)
return rows
