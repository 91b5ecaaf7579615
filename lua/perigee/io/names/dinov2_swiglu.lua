-- DINOv2's giant: the MLPs are SwiGLU, w12 and w3.
local made = require("perigee.io.names").like(require "perigee.io.names.dinov2", {
  what = "DINOv2's giant as its authors release it",
  marks = { "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.w12.weight" },
})
for k, pair in ipairs(made) do
  made[k] = { pair[1], (pair[2]:gsub("mlp%.fc1", "mlp.w12"):gsub("mlp%.fc2", "mlp.w3")) }
end
return made
