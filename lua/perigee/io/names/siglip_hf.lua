-- SigLIP as Hugging Face's transformers save it: recognised, and not held by the models here.
return {
  what = "SigLIP as Hugging Face saves it",
  marks = { "vision_model.embeddings.patch_embedding.bias", "vision_model.head.probe" },
  missing = "a vision transformer without a class token",
}
