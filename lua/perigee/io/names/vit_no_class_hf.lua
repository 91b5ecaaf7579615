-- I-JEPA as Hugging Face's transformers save it: ViT's names without a class token.
local made = require("perigee.io.names").like(require "perigee.io.names.vit_hf", {
  what = "I-JEPA as Hugging Face saves it",
  marks = { "embeddings.position_embeddings", "embeddings.patch_embeddings.projection.weight",
    "encoder.layer.0.attention.attention.query.weight", "encoder.layer.0.layernorm_before.weight" },
})
table.remove(made, 1) -- the class token
return made
