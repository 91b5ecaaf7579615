-- ViT, DeiT and MAE as Hugging Face's transformers save them.
local function qkv(head) return { head .. ".query.*", head .. ".key.*", head .. ".value.*" } end

return {
  what = "a vision transformer as Hugging Face saves it",
  family = "vit",
  marks = { "embeddings.cls_token", "embeddings.position_embeddings",
    "encoder.layer.0.attention.attention.query.weight", "encoder.layer.0.layernorm_before.weight" },
  { "class_token", "embeddings.cls_token" },
  { "position", "embeddings.position_embeddings" },
  { "patch_embedding.*", "embeddings.patch_embeddings.projection.*" },
  { "blocks.#.norm1.*", "encoder.layer.#.layernorm_before.*" },
  { "blocks.#.norm2.*", "encoder.layer.#.layernorm_after.*" },
  { "blocks.#.attention.qkv.*", qkv "encoder.layer.#.attention.attention" },
  { "blocks.#.attention.projection.*", "encoder.layer.#.attention.output.dense.*" },
  { "blocks.#.mlp.hidden.*", "encoder.layer.#.intermediate.dense.*" },
  { "blocks.#.mlp.output.*", "encoder.layer.#.output.dense.*" },
  { "norm.*", "layernorm.*" },
  { "head.*", "classifier.*" },
  epsilon = 1e-12,
  ignored = { "classifier.", "pooler.", "embeddings.mask_token", "decoder.", "layernorm." },
}
