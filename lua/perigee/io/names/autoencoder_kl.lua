-- diffusers' AutoencoderKL of four levels, as Stable Diffusion's. The decoder's levels are counted from the smallest
-- size there, from the largest here.
local rows = {
  what = "an AutoencoderKL as diffusers saves it",
  family = "autoencoder_kl",
  marks = { "encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight",
    "encoder.mid_block.attentions.0.to_q.weight" },
}

local function add(ours, theirs) rows[#rows + 1] = { ours, theirs } end

--- The rows of a block: norms and convolutions keep their names.
local function add_block(ours, theirs)
  add(ours .. ".shortcut.*", theirs .. ".conv_shortcut.*")
  for _, part in ipairs { "norm1", "conv1", "norm2", "conv2" } do
    add(("%s.%s.*"):format(ours, part), ("%s.%s.*"):format(theirs, part))
  end
end

local function add_attention(ours, theirs)
  add(ours .. ".norm.*", theirs .. ".group_norm.*")
  add(ours .. ".qkv.*", { theirs .. ".to_q.*", theirs .. ".to_k.*", theirs .. ".to_v.*" })
  add(ours .. ".projection.*", theirs .. ".to_out.0.*")
end

local function add_level(ours, theirs)
  add_block(ours .. ".blocks.#", theirs .. ".resnets.#")
  add_attention(ours .. ".attentions.#", theirs .. ".attentions.#")
  add(ours .. ".downsample.*", theirs .. ".downsamplers.0.conv.*")
  add(ours .. ".upsample.*", theirs .. ".upsamplers.0.conv.*")
end

add_level("encoder.levels.#", "encoder.down_blocks.#")
for level = 1, 4 do add_level("decoder.levels." .. level, "decoder.up_blocks." .. 4 - level) end
for _, half in ipairs { "encoder", "decoder" } do
  add_block(half .. ".middle.block1", half .. ".mid_block.resnets.0")
  add_attention(half .. ".middle.attention", half .. ".mid_block.attentions.0")
  add_block(half .. ".middle.block2", half .. ".mid_block.resnets.1")
  add(half .. ".input.*", half .. ".conv_in.*")
  add(half .. ".norm.*", half .. ".conv_norm_out.*")
  add(half .. ".output.*", half .. ".conv_out.*")
end
add("quant.*", "quant_conv.*")
add("post_quant.*", "post_quant_conv.*")
return rows
