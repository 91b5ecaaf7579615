"""haste_step (losses, gradients, three optimizer steps) and gradient_angle."""

from dataclasses import asdict

import torch

import losses
import paths
import sit
import vit
from build_student import TINY, tiny_weights, weights
from store import Draw, Fixture

TEACHER = vit.Config(width=30, depth=4, heads=3, patch=4, image=16, stored_grid=4, layerscale=True)
PAIRS = ((2, 3), (3, 4))                        # student block <- teacher block, from 1
FEATURE_BLOCK = 2
HIDDEN = 40                                     # of the projector
PROBE_BLOCK = 2
WEIGHTS = (1.0, 0.5, 0.5)                       # denoise, features, attention
AFTER_ONE = ("blocks.1.", "final_layer.", "y_embedder.", "projectors.")    # what is stored after step 1
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "decay": 0.01, "clip": 1.0, "ema": 0.99}
SETTINGS = {"student": asdict(TINY), "teacher": asdict(TEACHER), "loss_weights": WEIGHTS,
            "student_blocks": [s for s, _ in PAIRS], "teacher_blocks": [t for _, t in PAIRS],
            "feature_block": FEATURE_BLOCK}


def projector_weights():
    return losses.draw_projector(Draw(122), TINY.width, HIDDEN, TEACHER.width)


def teacher_weights():
    return vit.draw_weights(TEACHER, Draw(121))


def three_losses(w, teacher, x_t, target, t, y):
    taps = {}
    velocity = sit.forward(w, TINY, x_t, t, y, taps)
    features = losses.feature_alignment(losses.project(w, taps[f"block.{FEATURE_BLOCK}"]), teacher["patches"])
    attention = losses.attention_alignment([(taps[f"q.{s}"], taps[f"k.{s}"], teacher[f"logits.{v}"])
                                            for s, v in PAIRS])
    return velocity, (losses.denoise(velocity, target), features, attention)


def total(values):
    return sum(weight * value for weight, value in zip(WEIGHTS, values))


def trainable(values):
    return {name: v.clone().requires_grad_() for name, v in values.items() if name != "pos_embed"}


def build_step():
    draw = Draw(123)
    fixture = Fixture("haste_step", **SETTINGS, **ADAMW)
    x0, images, y = draw.normal(4, 4, 8, 8), draw.uniform(4, 3, 16, 16), torch.tensor([5, 10, 1, 9])
    fixture.put_all("", {"x0": x0, "images": images, "y": y})
    teacher = vit.forward(teacher_weights(), TEACHER, images)
    fixture.put("teacher.patches", teacher["patches"])
    for _, block in PAIRS:
        fixture.put(f"teacher.logits.{block}", teacher[f"logits.{block}"])

    start = {**tiny_weights(), **projector_weights()}
    w = trainable(start)
    ema = {name: v.detach().clone() for name, v in w.items()}
    optimizer = torch.optim.AdamW(w.values(), lr=ADAMW["lr"], betas=ADAMW["betas"], eps=ADAMW["eps"],
                                  weight_decay=ADAMW["decay"], foreach=False)
    for step in (1, 2, 3):
        noise, t = draw.normal(4, 4, 8, 8), draw.uniform(4)
        x_t, target = paths.interpolate("linear", x0, noise, t)
        velocity, values = three_losses({**w, "pos_embed": start["pos_embed"]}, teacher, x_t, target, t, y)
        optimizer.zero_grad()
        total(values).backward()
        fixture.put_all(f"step{step}.", {"noise": noise, "t": t})
        for name, value in zip(("denoise", "features", "attention", "total"), (*values, total(values))):
            fixture.exact(f"step{step}.{name}", value)
        if step == 1:
            fixture.put_all("step1.", {"x_t": x_t, "target": target, "velocity": velocity})
            fixture.put_all("grad.", {name: v.grad for name, v in w.items()})
        norm = torch.nn.utils.clip_grad_norm_(w.values(), ADAMW["clip"], foreach=False)
        fixture.exact(f"step{step}.gradient_norm", norm)
        optimizer.step()
        for name, v in w.items():
            ema[name].mul_(ADAMW["ema"]).add_(v.detach(), alpha=1 - ADAMW["ema"])
        if step != 2:
            kept = [name for name in w if step == 3 or name.startswith(AFTER_ONE)]
            fixture.put_all(f"after{step}.", {name: w[name] for name in kept})
            fixture.put_all(f"ema{step}.", {name: ema[name] for name in kept})
    for name, v in w.items():
        if name.startswith(("blocks.1.attn", "final_layer")):
            fixture.put("m3." + name, optimizer.state[v]["exp_avg"])
            fixture.put("v3." + name, optimizer.state[v]["exp_avg_sq"])
    return fixture


def build_angle():
    """Cosine between the gradients of the denoising and of the alignment loss in one block."""
    draw = Draw(131)
    times = [0.02, 0.1, 0.5, 0.8]
    fixture = Fixture("gradient_angle", **SETTINGS, block=PROBE_BLOCK, times=times)
    x0, images, y = draw.normal(4, 4, 8, 8), draw.uniform(4, 3, 16, 16), torch.tensor([0, 4, 10, 8])
    noise = draw.normal(len(times), 4, 4, 8, 8)
    fixture.put_all("", {"x0": x0, "images": images, "y": y, "noise": noise})
    fixture.exact("times", times)
    teacher = vit.forward(teacher_weights(), TEACHER, images)
    start = {**tiny_weights(), **projector_weights()}
    w = trainable(start)
    probed = sorted(name for name in w if name.startswith(f"blocks.{PROBE_BLOCK - 1}."))
    rows = {name: [] for name in ("denoise", "alignment", "dot", "denoise_norm", "alignment_norm", "cosine",
                                  "denoise_norms", "alignment_norms", "dots")}
    for i, time in enumerate(times):
        t = torch.full((4,), time, dtype=x0.dtype)
        x_t, target = paths.interpolate("linear", x0, noise[i], t)
        _, (denoise, features, attention) = three_losses({**w, "pos_embed": start["pos_embed"]}, teacher,
                                                         x_t, target, t, y)
        alignment = WEIGHTS[1] * features + WEIGHTS[2] * attention
        g = torch.autograd.grad(denoise, [w[name] for name in probed], retain_graph=True)
        h = torch.autograd.grad(alignment, [w[name] for name in probed], allow_unused=True)
        h = [torch.zeros_like(a) if b is None else b for a, b in zip(g, h)]
        dots = torch.stack([(a * b).sum() for a, b in zip(g, h)])
        squares = [torch.stack([(a ** 2).sum() for a in each]) for each in (g, h)]
        norms = [each.sum().sqrt() for each in squares]
        for name, value in zip(rows, (denoise, alignment, dots.sum(), *norms, dots.sum() / (norms[0] * norms[1]),
                                      squares[0].sqrt(), squares[1].sqrt(), dots)):
            rows[name].append(value.detach())
        if time == 0.5:
            name = f"blocks.{PROBE_BLOCK - 1}.attn.qkv.weight"
            fixture.put("denoise_gradient." + name, g[probed.index(name)])
            fixture.put("alignment_gradient." + name, h[probed.index(name)])
    for name, values in rows.items():
        fixture.exact(name, torch.stack(values))
    fixture.exact("mean_cosine", torch.stack(rows["cosine"]).mean())
    fixture.settings["parameters"] = probed
    return fixture


def build():
    yield weights("haste_teacher.weights", asdict(TEACHER), teacher_weights())
    yield weights("haste_projector.weights", {"width": TINY.width, "hidden": HIDDEN, "out": TEACHER.width}, projector_weights())
    yield build_step()
    yield build_angle()
