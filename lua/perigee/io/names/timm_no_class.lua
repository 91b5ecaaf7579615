-- timm's vision transformers without a class token, SigLIP's among them, and I-JEPA's encoders.
local made = require("perigee.io.names").like(require "perigee.io.names.timm", {
  what = "a vision transformer without a class token, as timm and I-JEPA name it",
  marks = { "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight" },
  ignored = { "attn_pool.", "head.", "norm.", "fc_norm." },
})
table.remove(made, 1) -- the class token
return made
