-- CLIP as Hugging Face's transformers save it: recognised, and not held by the models here.
return {
  what = "CLIP as Hugging Face saves it",
  marks = { "embeddings.class_embedding", "pre_layrnorm.weight", "encoder.layers.0.self_attn.q_proj.weight" },
  missing = "a norm before the blocks, QuickGELU and layer norms with epsilon 1e-5",
}
