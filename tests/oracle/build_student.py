"""sit_tiny, sit_odd and paths."""

from dataclasses import asdict

import torch

import losses
import paths
import sit
from store import Draw, Fixture

TINY = sit.Config(width=32, depth=4, heads=4, patch=2, channels=4, height=8, columns=8, classes=10)
ODD = sit.Config(width=72, depth=1, heads=3, patch=4, channels=3, height=12, columns=20, classes=7)


def tiny_weights():
    return sit.draw_weights(TINY, Draw(101))


def weights(name, settings, values):
    fixture = Fixture(name, **settings)
    fixture.put_all("", values)
    return fixture


def forward(name, config, w, draw, t, y):
    fixture = Fixture(name, **asdict(config), weights=name + ".weights.safetensors")
    x, t, y = draw.normal(len(t), config.channels, config.height, config.columns), torch.tensor(t), torch.tensor(y)
    t, taps = t.to(x.dtype), {}
    out = sit.forward(w, config, x, t, y, taps)
    fixture.put_all("", {"x": x, "t": t, "y": y, "out": out})
    fixture.put_all("tap.", taps)
    return fixture


def build_paths():
    """Interpolants, targets and the loss of sit_tiny on both paths; log-normal times."""
    draw = Draw(103)
    fixture = Fixture("paths", weights="sit_tiny.weights.safetensors", **asdict(TINY))
    x0, noise, y = draw.normal(4, 4, 8, 8), draw.normal(4, 4, 8, 8), torch.tensor([2, 10, 7, 0])
    t = torch.tensor([0.0, 0.25, 0.625, 1.0], dtype=x0.dtype)
    z = draw.normal(33)
    fixture.put_all("", {"x0": x0, "noise": noise, "y": y, "t": t, "z": z})
    for path in ("linear", "cosine"):
        x_t, target = paths.interpolate(path, x0, noise, t)
        fixture.put(path + ".x_t", x_t)
        fixture.put(path + ".target", target)
        velocity = sit.forward(tiny_weights(), TINY, x_t, t, y)
        fixture.put(path + ".velocity", velocity)
        fixture.exact(path + ".loss", losses.denoise(velocity, target))
        for mu in (0, 1):
            fixture.exact(f"{path}.lognormal.{mu}", paths.lognormal_time(path, z + mu))
    return fixture


def build():
    w, odd = tiny_weights(), sit.draw_weights(ODD, Draw(111))
    yield weights("sit_tiny.weights", asdict(TINY), w)
    yield forward("sit_tiny", TINY, w, Draw(102), [0.0, 0.375, 0.9375], [3, 10, 0])
    yield weights("sit_odd.weights", asdict(ODD), odd)
    yield forward("sit_odd", ODD, odd, Draw(112), [0.125, 1.0], [7, 4])
    yield build_paths()
