-- CLIP's picture towers as Hugging Face's transformers save them.
local function qkv(part)
  local head = "encoder.layers.#.self_attn."
  return { head .. "q_proj." .. part, head .. "k_proj." .. part, head .. "v_proj." .. part }
end

return {
  what = "CLIP as Hugging Face saves it",
  family = "vit",
  marks = { "embeddings.class_embedding", "pre_layrnorm.weight", "encoder.layers.0.self_attn.q_proj.weight" },
  flat = { class_token = true, position = true },
  epsilon = 1e-5,
  { "class_token", "embeddings.class_embedding" },
  { "position", "embeddings.position_embedding.weight" },
  { "patch_embedding.*", "embeddings.patch_embedding.*" },
  { "pre_norm.*", "pre_layrnorm.*" },
  { "blocks.#.norm1.*", "encoder.layers.#.layer_norm1.*" },
  { "blocks.#.norm2.*", "encoder.layers.#.layer_norm2.*" },
  { "blocks.#.attention.qkv.*", qkv "*" },
  { "blocks.#.attention.projection.*", "encoder.layers.#.self_attn.out_proj.*" },
  { "blocks.#.mlp.hidden.*", "encoder.layers.#.mlp.fc1.*" },
  { "blocks.#.mlp.output.*", "encoder.layers.#.mlp.fc2.*" },
  { "norm.*", "post_layernorm.*" },
  ignored = { "post_layernorm.", "embeddings.position_ids" },
}
