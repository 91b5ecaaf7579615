-- diffusers' AutoencoderKL with the names that attention had before version 0.18: sd-vae-ft-mse and sd-vae-ft-ema.
local older = { to_q = "query", to_k = "key", to_v = "value", ["to_out.0"] = "proj_attn" }

local function renamed(name)
  for new, old in pairs(older) do name = name:gsub("%." .. new:gsub("%.", "%%.") .. "%.", "." .. old .. ".") end
  return name
end

local names = require("perigee.io.names").like(require "perigee.io.names.autoencoder_kl", {
  what = "an AutoencoderKL as diffusers saved it before its version 0.18",
  marks = { "encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight",
    "encoder.mid_block.attentions.0.query.weight" },
})
for k, pair in ipairs(names) do
  local theirs = pair[2]
  if type(theirs) == "table" then
    local list = {}
    for i, name in ipairs(theirs) do list[i] = renamed(name) end
    names[k] = { pair[1], list }
  else names[k] = { pair[1], renamed(theirs) } end
end
return names
