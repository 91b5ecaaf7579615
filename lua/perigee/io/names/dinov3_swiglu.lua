-- DINOv3's models whose MLPs are SwiGLU, w1, w2 and w3.
local made = require("perigee.io.names").like(require "perigee.io.names.dinov3", {
  what = "DINOv3 with SwiGLU as its authors release it",
  marks = { "storage_tokens", "cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.w1.weight" },
  convert = require("perigee.io.names.dinov3").convert,
})
for k, pair in ipairs(made) do
  if pair[1] == "blocks.#.mlp.hidden.*" then made[k] = { pair[1], { "blocks.#.mlp.w1.*", "blocks.#.mlp.w2.*" } }
  elseif pair[1] == "blocks.#.mlp.output.*" then made[k] = { pair[1], "blocks.#.mlp.w3.*" } end
end
return made
