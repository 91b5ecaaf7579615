"""vit_dinov2_tiny, resize, and (where its weights are at hand) vit_tiny_real."""

from dataclasses import asdict

import torch
import torch.nn.functional as F

import store
import vit
from build_student import weights
from store import Draw, Fixture

TINY = vit.Config(width=32, depth=3, heads=2, patch=7, image=28, stored_grid=6, registers=2, layerscale=True)
REAL = vit.Config(width=192, depth=12, heads=3, patch=16, image=224, stored_grid=14, statistics=vit.HALF)


def build_tiny():
    draw = Draw(202)
    w = vit.draw_weights(TINY, Draw(201))
    yield weights("vit_dinov2_tiny.weights", asdict(TINY), w)
    fixture = Fixture("vit_dinov2_tiny", **asdict(TINY), weights="vit_dinov2_tiny.weights.safetensors")
    images = draw.uniform(2, 3, 20, 20)
    fixture.put("images", images)
    fixture.put_all("", vit.forward(w, TINY, images))
    fixture.put("positions.plain", vit.resample_positions(w["pos_embed"], 6, 4, False))
    yield fixture


def resize(x, size, kind):
    return F.interpolate(x, size=size, mode=kind.split("_")[0], align_corners=False,
                         antialias=kind.endswith("_antialias"))


def build_resize():
    """Each kind of resizing up, down and by odd ratios, with the gradient for a given upstream gradient."""
    draw = Draw(203)
    fixture = Fixture("resize")
    for old, new in (((14, 14), (16, 16)), ((16, 16), (14, 14)), ((5, 7), (9, 3)), ((6, 6), (4, 4)), ((3, 4), (7, 7))):
        case = "{}x{}_to_{}x{}.".format(*old, *new)
        x, upstream = draw.normal(1, 2, *old), draw.normal(1, 2, *new)
        fixture.put_all(case, {"x": x, "upstream": upstream})
        for kind in ("bilinear", "bicubic", "bilinear_antialias", "bicubic_antialias"):
            leaf = x.clone().requires_grad_()
            out = resize(leaf, new, kind)
            out.backward(upstream)
            fixture.put(case + kind, out)
            fixture.put(case + kind + ".grad", leaf.grad)
    return fixture


def drawn_pictures():
    """[2, 3, 32, 32], whole numbers / 255: a bright disc over a slope, and crossed waves."""
    v, u = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    disc = ((u - 19) ** 2 + (v - 12) ** 2 < 64).long()
    first = [disc * 230 + (1 - disc) * (u * 5), disc * 120 + (1 - disc) * (v * 6), disc * 30 + (1 - disc) * 200]
    second = [(u * 7 + v * 3) % 256, (u * u + 2 * v * v) % 251, (u * v) % 256]
    return (torch.stack([torch.stack(first), torch.stack(second)]).float() / 255).to(store.compute)


def build_real(file):
    w = store.raised(store.read(file))
    fixture = Fixture("vit_tiny_real", **asdict(REAL))
    images = drawn_pictures()
    fixture.put("images", images)
    for size in (224, 256):
        config = vit.Config(**{**asdict(REAL), "image": size})
        taps = vit.forward(w, config, images)
        name = f"{size}."
        fixture.put_all(name, {"class": taps["class"], "mean_patch": taps["patches"].mean(1),
                               "patches_every_25": taps["patches"][:, ::25],
                               "logits_every_7": taps["classes"][:, ::7],
                               "top1": taps["classes"].argmax(1), "top1_logit": taps["classes"].max(1).values,
                               "preprocessed_rows_0_100": taps["preprocessed"][:, :, [0, 100]],
                               "positions_every_13": taps["positions"][:, ::13],
                               "attention_logits.1": taps["logits.1"][:, :, ::50, ::9],
                               "attention_logits.12": taps["logits.12"][:, :, ::50, ::9]})
    return fixture


def build(file=None):
    yield from build_tiny()
    yield build_resize()
    if file:
        yield build_real(file)
