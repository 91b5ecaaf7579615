-- DINOv2 as Hugging Face's transformers save it, with registers or without.
local function qkv(head) return { head .. ".query.*", head .. ".key.*", head .. ".value.*" } end

return {
  what = "DINOv2 as Hugging Face saves it",
  family = "vit",
  marks = { "embeddings.cls_token", "embeddings.position_embeddings",
    "encoder.layer.0.attention.attention.query.weight", "encoder.layer.0.layer_scale1.lambda1" },
  { "class_token", "embeddings.cls_token" },
  { "register_tokens", "embeddings.register_tokens" },
  { "position", "embeddings.position_embeddings" },
  { "patch_embedding.*", "embeddings.patch_embeddings.projection.*" },
  { "blocks.#.norm1.*", "encoder.layer.#.norm1.*" },
  { "blocks.#.norm2.*", "encoder.layer.#.norm2.*" },
  { "blocks.#.attention.qkv.*", qkv "encoder.layer.#.attention.attention" },
  { "blocks.#.attention.projection.*", "encoder.layer.#.attention.output.dense.*" },
  { "blocks.#.scale1.gamma", "encoder.layer.#.layer_scale1.lambda1" },
  { "blocks.#.scale2.gamma", "encoder.layer.#.layer_scale2.lambda1" },
  { "blocks.#.mlp.hidden.*", "encoder.layer.#.mlp.fc1.*" },
  { "blocks.#.mlp.output.*", "encoder.layer.#.mlp.fc2.*" },
  { "norm.*", "layernorm.*" },
  ignored = { "embeddings.mask_token", "classifier." },
}
