-- CompVis' AutoencoderKL (latent-diffusion, Stable Diffusion, VA-VAE), of any number of levels; attention's matrices
-- are 1×1 convolutions there.
local rows = {
  what = "an AutoencoderKL as CompVis saves it",
  family = "autoencoder_kl",
  marks = { "encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight",
    "encoder.mid.attn_1.q.weight" },
  pointwise = { "%.qkv%.weight$", "%.projection%.weight$" },
  -- of its training, and of what surrounds it in a file of Stable Diffusion
  ignored = { "loss.", "model_ema.", "foundation_model.", "linear_proj." },
}

local function add(ours, theirs) rows[#rows + 1] = { ours, theirs } end

local function add_block(ours, theirs)
  add(ours .. ".shortcut.*", theirs .. ".nin_shortcut.*")
  for _, part in ipairs { "norm1", "conv1", "norm2", "conv2" } do
    add(("%s.%s.*"):format(ours, part), ("%s.%s.*"):format(theirs, part))
  end
end

local function add_attention(ours, theirs)
  add(ours .. ".norm.*", theirs .. ".norm.*")
  add(ours .. ".qkv.*", { theirs .. ".q.*", theirs .. ".k.*", theirs .. ".v.*" })
  add(ours .. ".projection.*", theirs .. ".proj_out.*")
end

for half, way in pairs { encoder = "down", decoder = "up" } do
  local ours, theirs = half .. ".levels.#", ("%s.%s.#"):format(half, way)
  add_block(ours .. ".blocks.#", theirs .. ".block.#")
  add_attention(ours .. ".attentions.#", theirs .. ".attn.#")
  add(("%s.%ssample.*"):format(ours, way), ("%s.%ssample.conv.*"):format(theirs, way))
  add_block(half .. ".middle.block1", half .. ".mid.block_1")
  add_attention(half .. ".middle.attention", half .. ".mid.attn_1")
  add_block(half .. ".middle.block2", half .. ".mid.block_2")
  add(half .. ".input.*", half .. ".conv_in.*")
  add(half .. ".norm.*", half .. ".norm_out.*")
  add(half .. ".output.*", half .. ".conv_out.*")
end
add("quant.*", "quant_conv.*")
add("post_quant.*", "post_quant_conv.*")
return rows
