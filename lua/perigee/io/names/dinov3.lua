-- DINOv3's own releases: recognised, and not held by the models here.
return {
  what = "DINOv3 as its authors release it",
  marks = { "storage_tokens", "rope_embed.periods", "blocks.0.attn.qkv.bias_mask" },
  missing = "rotary positions",
}
