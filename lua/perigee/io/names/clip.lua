-- CLIP's own releases (TorchScript): recognised, and not held by the models here.
return {
  what = "CLIP as its authors release it",
  marks = { "visual.class_embedding", "visual.ln_pre.weight", "visual.transformer.resblocks.0.attn.in_proj_weight" },
  missing = "a norm before the blocks, QuickGELU and layer norms with epsilon 1e-5",
}
