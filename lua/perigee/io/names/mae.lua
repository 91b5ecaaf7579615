-- MAE's checkpoints: timm's names and a decoder.
return require("perigee.io.names").like(require "perigee.io.names.timm", {
  what = "MAE",
  marks = { "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight",
    "mask_token", "decoder_embed.weight" },
  ignored = { "mask_token", "decoder_", "norm." },
})
