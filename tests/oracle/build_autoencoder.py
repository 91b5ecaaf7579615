"""AutoencoderKL of diffusers with few channels: what it makes of pictures and latents, its weights being a formula's.

Weights are not stored. A generator (Park and Miller's, 16807·s mod 2^31 − 1) begins for the k-th tensor by name, from 1,
at s = k and leaves ten numbers out; then a number is u = 2·s / (2^31 − 1) − 1. Norms' weights are 1 + u/5, biases u/5,
other weights u·√(3/inputs), each rounded to float32.
"""

import math
import re

import numpy
import torch

import store

CASES = {
    "f8": dict(channels=(32, 64, 64, 96), attention=False, latent=4, picture=(2, 3, 24, 32), code=(2, 4, 3, 5)),
    "f16": dict(channels=(32, 32, 32, 32, 64), attention=True, latent=8, picture=(1, 3, 32, 48), code=(1, 8, 2, 3)),
}


def numbers(seed, count):
    out, s = numpy.empty(count), seed
    for k in range(-10, count):
        s = s * 16807 % 2147483647
        if k >= 0:
            out[k] = 2 * s / 2147483647 - 1
    return out


def compvis(name, levels):
    """diffusers' name of a tensor as CompVis has it."""
    turned = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    for pattern, to in [
            (r"down_blocks\.", "down."), (r"mid_block\.resnets\.0", "mid.block_1"), (r"mid_block\.resnets\.1", "mid.block_2"),
            (r"mid_block\.attentions\.0", "mid.attn_1"), (r"resnets\.", "block."), (r"attentions\.", "attn."),
            (r"downsamplers\.0", "downsample"), (r"upsamplers\.0", "upsample"), (r"conv_shortcut", "nin_shortcut"),
            (r"conv_norm_out", "norm_out"), (r"group_norm", "norm"), (r"to_out\.0", "proj_out"), (r"to_([qkv])\.", r"\1.")]:
        turned = re.sub(pattern, to, turned)
    return turned


def fill(model, levels):
    state = model.state_dict()
    for k, name in enumerate(sorted(state), 1):
        shape = tuple(state[name].shape)
        u = numbers(k, math.prod(shape)).reshape(shape)
        if len(shape) == 1:
            values = 1 + u / 5 if name.endswith("weight") else u / 5
        else:
            values = u * math.sqrt(3 / math.prod(shape[1:]))
        state[name] = torch.from_numpy(values.astype(numpy.float32)).to(store.compute)
    model.load_state_dict(state)
    return [[name, list(state[name].shape), compvis(name, levels)] for name in sorted(state)]


def autoencoder(channels, attention, latent, blocks=1):
    from diffusers import AutoencoderKL
    down, up = ["DownEncoderBlock2D"] * len(channels), ["UpDecoderBlock2D"] * len(channels)
    if attention:
        down[-1], up[0] = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"
    model = AutoencoderKL(down_block_types=tuple(down), up_block_types=tuple(up), block_out_channels=channels,
                          layers_per_block=blocks, latent_channels=latent)
    if attention:  # one head, as CompVis has it; diffusers' blocks take one of 8 channels by default
        for module in model.modules():
            if type(module).__name__ == "Attention":
                module.heads, module.scale = 1, module.to_q.weight.shape[1] ** -0.5
    return model.eval().to(store.compute)


def build():
    for name, case in CASES.items():
        draw = store.Draw(41)
        model = autoencoder(case["channels"], case["attention"], case["latent"])
        fixture = store.Fixture("autoencoder_" + name, tensors=fill(model, len(case["channels"])), channels=case["channels"])
        picture, code = draw.uniform(*case["picture"], low=-1.0), draw.normal(*case["code"])
        with torch.no_grad():
            found = model.encode(picture).latent_dist
            fixture.put_all("", {"picture": picture, "mean": found.mean, "std": found.std, "code": code,
                                 "decoded": model.decode(code).sample})
        yield fixture


def names():
    state = autoencoder((128, 256, 512, 512), False, 4, blocks=2).state_dict()
    lines = [f"{name}\t{'x'.join(map(str, state[name].shape))}" for name in sorted(state)]
    return "# Stable Diffusion's AutoencoderKL: names and shapes of diffusers' state dict.\n" + "\n".join(lines) + "\n"
