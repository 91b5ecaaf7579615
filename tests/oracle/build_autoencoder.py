"""Autoencoders with few channels, diffusers' own and a decoder of TAESD's kin: what they make of pictures and latents,
the weights being a formula's.

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
    yield from build_tiny()


class Block(torch.nn.Module):
    """TAESD's block with the branch that FLUX.2's has (taesd.py of github.com/madebyollin/taesd), in our own words."""

    def __init__(self, width, pool):
        super().__init__()
        layer, relu = (lambda: torch.nn.Conv2d(width, width, 3, padding=1)), torch.nn.ReLU()
        self.conv = torch.nn.Sequential(layer(), relu, layer(), relu, layer())
        self.pool = torch.nn.Sequential(
            torch.nn.Conv2d(width, 4 * width, 1, bias=False), torch.nn.GroupNorm(4, 4 * width), relu,
            torch.nn.Conv2d(4 * width, width, 1, bias=False)) if pool else None

    def forward(self, x):
        if self.pool:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Limit(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


def tiny_decoder(latent, width):
    layers = [Limit(), torch.nn.Conv2d(latent, width, 3, padding=1), torch.nn.ReLU()]
    for stage in range(3):
        layers += [Block(width, stage == 0) for _ in range(3)]
        layers += [torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(width, width, 3, padding=1, bias=False)]
    return torch.nn.Sequential(*layers, Block(width, False), torch.nn.Conv2d(width, 3, 3, padding=1)).to(store.compute)


def build_tiny():
    from diffusers import AutoencoderTiny
    draw = store.Draw(43)
    both = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).to(store.compute)
    fixture = store.Fixture("autoencoder_tiny", tensors=[entry[:2] for entry in fill(both, 4)])
    picture, code = draw.uniform(1, 3, 24, 32, low=-1.0), draw.normal(2, 4, 3, 5, scale=2.0)
    decoder = tiny_decoder(5, 8)
    fixture.settings["decoder"] = [entry[:2] for entry in fill(decoder, 4)]
    other = draw.normal(1, 5, 3, 4)
    with torch.no_grad():
        fixture.put_all("", {"picture": picture, "encoded": both.encode(picture).latents, "code": code,
                             "decoded": both.decode(code).sample, "decoder.code": other,
                             "decoder.decoded": decoder(other) * 2 - 1})
    yield fixture


def names():
    state = autoencoder((128, 256, 512, 512), False, 4, blocks=2).state_dict()
    lines = [f"{name}\t{'x'.join(map(str, state[name].shape))}" for name in sorted(state)]
    return "# Stable Diffusion's AutoencoderKL: names and shapes of diffusers' state dict.\n" + "\n".join(lines) + "\n"
