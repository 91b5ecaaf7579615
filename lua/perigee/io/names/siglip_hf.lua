-- SigLIP's picture towers, and SigLIP 2's of one resolution, as Hugging Face's transformers save them: CLIP's names
-- without a class token. The pooling head is left out.
local made = require("perigee.io.names").like(require "perigee.io.names.clip_hf", {
  what = "SigLIP as Hugging Face saves it",
  marks = { "embeddings.position_embedding.weight", "embeddings.patch_embedding.bias",
    "encoder.layers.0.self_attn.q_proj.weight", "post_layernorm.weight" },
  flat = { position = true },
  epsilon = 1e-6,
  ignored = { "post_layernorm.", "head.", "embeddings.position_ids" },
})
table.remove(made, 1) -- the class token
return made
