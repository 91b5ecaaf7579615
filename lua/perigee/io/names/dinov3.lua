-- DINOv3's own releases: DINOv2's names, but for the registers; the bias of the keys is masked.
local made = require("perigee.io.names").like(require "perigee.io.names.dinov2", {
  what = "DINOv3 as its authors release it",
  marks = { "storage_tokens", "cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc1.weight" },
  epsilon = 1e-5,
  convert = { ["blocks.#.attention.qkv.bias"] = "no_key_bias" },
  ignored = { "mask_token", "rope_embed.periods", "blocks.#.attn.qkv.bias_mask" },
})
for k, pair in ipairs(made) do
  if pair[1] == "register_tokens" then made[k] = { "register_tokens", "storage_tokens" } end
end
return made
