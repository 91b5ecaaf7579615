-- DINOv3's models whose MLPs are SwiGLU, as Hugging Face's transformers save them.
local dinov3 = require "perigee.io.names.dinov3_hf"
local made = require("perigee.io.names").like(dinov3, {
  what = "DINOv3 with SwiGLU as Hugging Face saves it",
  marks = { "embeddings.cls_token", "embeddings.register_tokens", "layer.0.attention.q_proj.weight",
    "layer.0.mlp.gate_proj.weight" },
})
for k, pair in ipairs(made) do
  if pair[1] == "blocks.#.mlp.hidden.*" then
    made[k] = { pair[1], { "layer.#.mlp.gate_proj.*", "layer.#.mlp.up_proj.*" } }
  end
end
return made
