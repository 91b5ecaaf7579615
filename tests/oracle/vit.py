"""A vision transformer with timm / DINOv2 names, as a plain function of its state dict."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sit import attend, linear, split_heads

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass
class Config:
    width: int
    depth: int
    heads: int
    patch: int
    image: int                      # side of the resized picture
    stored_grid: int                # side of the stored position embedding
    registers: int = 0
    layerscale: bool = False
    statistics: tuple = IMAGENET
    antialias: bool = True          # of the position embedding's resampling

    @property
    def grid(self):
        return self.image // self.patch

    @property
    def prefix(self):
        return 1 + self.registers


def draw_weights(c, draw):
    w = {"cls_token": draw.normal(1, 1, c.width),
         "pos_embed": draw.normal(1, 1 + c.stored_grid ** 2, c.width, scale=0.5),
         "patch_embed.proj.weight": draw.normal(c.width, 3, c.patch, c.patch, scale=(3 * c.patch ** 2) ** -0.5),
         "patch_embed.proj.bias": draw.normal(c.width, scale=0.2)}
    if c.registers:
        w["register_tokens"] = draw.normal(1, c.registers, c.width)
    if c.layerscale:
        w["mask_token"] = draw.normal(1, c.width)          # part of DINOv2's files; no output depends on it
    for i in range(c.depth):
        block = f"blocks.{i}."
        w.update(draw.linear(block + "attn.qkv", 3 * c.width, c.width))
        w.update(draw.linear(block + "attn.proj", c.width, c.width))
        w.update(draw.linear(block + "mlp.fc1", 4 * c.width, c.width))
        w.update(draw.linear(block + "mlp.fc2", c.width, 4 * c.width))
        for norm in ("norm1", "norm2"):
            w.update(draw_norm(block + norm, c.width, draw))
        if c.layerscale:
            w[block + "ls1.gamma"] = draw.normal(c.width, scale=0.3, mean=0.5)
            w[block + "ls2.gamma"] = draw.normal(c.width, scale=0.3, mean=0.5)
    w.update(draw_norm("norm", c.width, draw))
    return w


def draw_norm(name, width, draw):
    return {name + ".weight": draw.normal(width, scale=0.3, mean=1.0), name + ".bias": draw.normal(width, scale=0.2)}


def norm(w, name, x):
    return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], eps=1e-6)


def preprocess(c, images):
    """Pictures in [0,1]: normalised per channel, then bicubic (a = -0.75, no antialias) to c.image."""
    mean, deviation = (torch.tensor(v, dtype=images.dtype, device=images.device)[None, :, None, None]
                       for v in c.statistics)
    return F.interpolate((images - mean) / deviation, size=(c.image, c.image), mode="bicubic",
                         align_corners=False, antialias=False)


def resample_positions(positions, old, new, antialias):
    """[1, 1+old*old, D] -> [1, 1+new*new, D]; the class token's row is kept as it is."""
    if old == new:
        return positions
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def forward(w, c, images, logits=None, attend=attend):
    """Everything that is read from a teacher, for pictures [B,3,H,W] in [0,1]; logits of all blocks, or of the given ones."""
    taps = {"preprocessed": preprocess(c, images)}
    taps["positions"] = resample_positions(w["pos_embed"], c.stored_grid, c.grid, c.antialias)
    x = F.conv2d(taps["preprocessed"], w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=c.patch)
    x = x.flatten(2).transpose(1, 2)
    b = x.shape[0]
    x = torch.cat([w["cls_token"].expand(b, -1, -1), x], 1) + taps["positions"]
    if c.registers:                                         # after the positions: registers have none
        x = torch.cat([x[:, :1], w["register_tokens"].expand(b, -1, -1), x[:, 1:]], 1)
    for i in range(c.depth):
        block = f"blocks.{i}."
        q, k, v = split_heads(linear(w, block + "attn.qkv", norm(w, block + "norm1", x)), c.heads)
        branch = linear(w, block + "attn.proj", attend(q, k, v))
        x = x + branch * w.get(block + "ls1.gamma", 1)
        inner = F.gelu(linear(w, block + "mlp.fc1", norm(w, block + "norm2", x)))
        x = x + linear(w, block + "mlp.fc2", inner) * w.get(block + "ls2.gamma", 1)
        qp, kp = q[:, :, c.prefix:], k[:, :, c.prefix:]     # patches only, before any softmax
        taps[f"q.{i + 1}"], taps[f"k.{i + 1}"] = qp, kp
        if logits is None or i + 1 in logits:
            taps[f"logits.{i + 1}"] = qp @ kp.transpose(-1, -2) / q.shape[-1] ** 0.5
        taps[f"block.{i + 1}"] = x
    x = norm(w, "norm", x)
    taps["class"], taps["patches"] = x[:, 0], x[:, c.prefix:]
    if "head.weight" in w:
        taps["classes"] = linear(w, "head", taps["class"])
    return taps
