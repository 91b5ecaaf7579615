-- diffusers' AutoencoderKL: recognised, and not held by the models here.
return {
  what = "an AutoencoderKL of diffusers",
  marks = { "encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight",
    "decoder.up_blocks.0.resnets.0.conv1.weight" },
  missing = "convolutional autoencoders",
}
