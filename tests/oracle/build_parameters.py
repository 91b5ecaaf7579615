"""parameters: a model whose forward pass computes with its parameters before it uses them, over ten AdamW steps."""

import torch
import torch.nn.functional as F

import paths
from store import Draw, Fixture

ADAMW = {"lr": 1e-2, "betas": [0.9, 0.999], "eps": 1e-8, "decay": 0.05, "clip": 1.0, "ema": 0.9, "steps": 10}
SIZES = {"width": 8, "channels": 3, "side": 4, "classes": 3, "batch": 4, "positions": 24, "first_position": 2}
GAUGE = 0.1                                              # weight of the loss that reads parameters alone
FROZEN = ("offset",)


def draw_weights(draw):
    width, channels = SIZES["width"], SIZES["channels"]
    return {
        "direction": draw.normal(width, channels), "length": draw.uniform(width, low=0.5, high=1.5),
        "bias": draw.normal(width, scale=0.1), "position": draw.normal(1, SIZES["positions"], width, scale=0.3),
        "time": draw.normal(width, scale=0.3), "labels.table": draw.normal(SIZES["classes"] + 1, width, scale=0.3),
        "offset": draw.normal(width, scale=0.1), "log_scale": draw.normal(1, scale=0.2), "mix": draw.normal(3),
        "blocks.1.gain": draw.normal(width), "blocks.1.scale": draw.normal(width, scale=0.1),
        "blocks.2.scale": draw.normal(width, scale=0.1),
        **{name.replace("shared", "blocks.1.shared"): v
           for name, v in draw.linear("shared", width, width).items()},
    }


def forward(w, x, t, y):
    batch, channels, side, _ = x.shape
    weight = w["direction"] / (w["direction"] ** 2).sum(1, keepdim=True).sqrt() * w["length"][:, None]
    first = SIZES["first_position"]
    h = x.permute(0, 2, 3, 1).reshape(batch, side * side, channels) @ weight.T + w["bias"]
    h = h + w["position"][:, first:first + side * side] + w["offset"]
    h = h + (t[:, None] * w["time"] + w["labels.table"][y])[:, None]
    states = [h]
    for block in (1, 2):                                 # gain and linear layer are the same in both
        n = h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + w[f"blocks.{block}.scale"])
        branch = F.silu(F.linear(n, w["blocks.1.shared.weight"], w["blocks.1.shared.bias"]))
        h = h + branch * w["blocks.1.gain"].sigmoid() * w["log_scale"].exp()
        states.append(h)
    h = sum(share * state for share, state in zip(w["mix"].softmax(0), states))
    return (h @ weight).reshape(batch, side, side, channels).permute(0, 3, 1, 2)


def gauge(w):
    return w["log_scale"].square().sum() + w["length"].square().mean()


def build():
    draw = Draw(601)
    fixture = Fixture("parameters", **SIZES, **ADAMW, gauge=GAUGE, frozen=FROZEN)
    side, batch = SIZES["side"], SIZES["batch"]
    w = draw_weights(draw)
    images = (draw.uniform(batch, side, side, 3) * 255).round()
    y = torch.tensor([0, 2, 3, 1])
    fixture.put_all("", {"images": images, "y": y})
    fixture.put_all("start.", w)
    x0 = images.permute(0, 3, 1, 2) * 2 / 255 - 1
    trained = {name: v.requires_grad_() for name, v in w.items() if name not in FROZEN}
    ema = {name: v.detach().clone() for name, v in w.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=ADAMW["lr"], betas=ADAMW["betas"], eps=ADAMW["eps"],
                                  weight_decay=ADAMW["decay"], foreach=False)
    for step in range(1, ADAMW["steps"] + 1):
        noise, t = draw.normal(*x0.shape), draw.uniform(batch)
        x_t, target = paths.interpolate("linear", x0, noise, t)
        denoise = (forward(w, x_t, t, y) - target).square().mean()
        optimizer.zero_grad()
        (denoise + GAUGE * gauge(w)).backward()
        fixture.put_all(f"step{step}.", {"noise": noise, "t": t})
        fixture.exact(f"step{step}.denoise", denoise)
        fixture.exact(f"step{step}.gauge", gauge(w))
        if step == 1:
            for name, v in trained.items():
                fixture.exact("grad." + name, v.grad)
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), ADAMW["clip"], foreach=False)
        fixture.exact(f"step{step}.gradient_norm", norm)
        optimizer.step()
        for name, v in w.items():
            ema[name].mul_(ADAMW["ema"]).add_(v.detach(), alpha=1 - ADAMW["ema"])
    for name, v in w.items():
        fixture.exact("after." + name, v)
        fixture.exact("ema." + name, ema[name])
    yield fixture
