"""SiT as a plain function of its state dict. Block i of the state dict is block i + 1 of a recipe."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import store


@dataclass
class Config:
    width: int
    depth: int
    heads: int
    patch: int
    channels: int
    height: int
    columns: int
    classes: int
    frequencies: int = 128
    ratio: int = 4
    sigma: bool = False  # a variance as well, of as many channels

    @property
    def outputs(self):
        return self.channels * (2 if self.sigma else 1)

    @property
    def grid(self):
        return self.height // self.patch, self.columns // self.patch


def position_embedding(width, rows, columns):
    """[1, rows*columns, width]: sin(column), cos(column), sin(row), cos(row), a quarter of the width each."""
    quarter = width // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float64).repeat(rows)
    waves = [f(place[:, None] * omega) for place in (column, row) for f in (torch.sin, torch.cos)]
    return torch.cat(waves, 1)[None].to(torch.float32).to(store.compute)


def draw_weights(c, draw):
    w = {"pos_embed": position_embedding(c.width, *c.grid)}
    w["x_embedder.proj.weight"] = draw.normal(c.width, c.channels, c.patch, c.patch,
                                              scale=(c.channels * c.patch ** 2) ** -0.5)
    w["x_embedder.proj.bias"] = draw.normal(c.width, scale=0.2)
    w.update(draw.linear("t_embedder.mlp.0", c.width, 2 * c.frequencies))
    w.update(draw.linear("t_embedder.mlp.2", c.width, c.width))
    w["y_embedder.embedding_table.weight"] = draw.normal(c.classes + 1, c.width, scale=0.7)
    for i in range(c.depth):
        block = f"blocks.{i}."
        w.update(draw.linear(block + "attn.qkv", 3 * c.width, c.width))
        w.update(draw.linear(block + "attn.proj", c.width, c.width))
        w.update(draw.linear(block + "mlp.fc1", c.ratio * c.width, c.width))
        w.update(draw.linear(block + "mlp.fc2", c.width, c.ratio * c.width))
        w.update(draw.linear(block + "adaLN_modulation.1", 6 * c.width, c.width))
    w.update(draw.linear("final_layer.linear", c.patch ** 2 * c.outputs, c.width))
    w.update(draw.linear("final_layer.adaLN_modulation.1", 2 * c.width, c.width))
    return w


def linear(w, name, x):
    return F.linear(x, w[name + ".weight"], w[name + ".bias"])


def modulated_norm(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def time_features(t, frequencies):
    omega = torch.exp(-math.log(10000.0) * torch.arange(frequencies, dtype=t.dtype, device=t.device) / frequencies)
    angle = t[:, None] * omega
    return torch.cat([angle.cos(), angle.sin()], 1)


def split_heads(qkv, heads):
    """[B, N, 3*D] -> q, k, v of [B, heads, N, D/heads]."""
    b, n, threefold = qkv.shape
    return qkv.view(b, n, 3, heads, threefold // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)


def attend(q, k, v):
    """softmax(q k' / sqrt(d)) v, heads joined again: [B, N, D]."""
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def forward(w, c, x, t, y, taps=None, attend=attend):
    """Velocity for x [B, C, height, columns] at times t [B] and labels y [B], and the variance after it where there is one; fills the
    dict `taps`."""
    taps = {} if taps is None else taps
    tokens = F.conv2d(x, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=c.patch)
    h = tokens.flatten(2).transpose(1, 2) + w["pos_embed"]
    taps["embedded"] = h
    taps["time_features"] = time_features(t, c.frequencies)
    taps["time"] = linear(w, "t_embedder.mlp.2", F.silu(linear(w, "t_embedder.mlp.0", taps["time_features"])))
    taps["conditioning"] = taps["time"] + w["y_embedder.embedding_table.weight"][y]
    signal = F.silu(taps["conditioning"])
    for i in range(c.depth):
        block = f"blocks.{i}."
        m = linear(w, block + "adaLN_modulation.1", signal).chunk(6, 1)
        q, k, v = split_heads(linear(w, block + "attn.qkv", modulated_norm(h, m[0], m[1])), c.heads)
        h = h + m[2][:, None] * linear(w, block + "attn.proj", attend(q, k, v))
        inner = F.gelu(linear(w, block + "mlp.fc1", modulated_norm(h, m[3], m[4])), approximate="tanh")
        h = h + m[5][:, None] * linear(w, block + "mlp.fc2", inner)
        taps[f"block.{i + 1}"], taps[f"q.{i + 1}"], taps[f"k.{i + 1}"] = h, q, k
    shift, scale = linear(w, "final_layer.adaLN_modulation.1", signal).chunk(2, 1)
    out = linear(w, "final_layer.linear", modulated_norm(h, shift, scale))
    rows, columns = c.grid
    out = out.view(-1, rows, columns, c.patch, c.patch, c.outputs)
    return torch.einsum("nhwpqc->nchpwq", out).reshape(len(x), c.outputs, c.height, c.columns)
