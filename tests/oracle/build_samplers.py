"""samplers: every sampler on an exact field and on sit_tiny, both paths, with and without guidance."""

from dataclasses import asdict

import torch

import samplers
import sit
from build_student import TINY, tiny_weights
from store import Draw, Fixture

STEPS, SCALE, INTERVAL, SPREAD = 10, 1.65, (0.0, 0.72), 0.5
CLASSES, KINDS = 3, 2


def build():
    draw = Draw(301)
    fixture = Fixture("samplers", steps=STEPS, scale=SCALE, interval=INTERVAL, spread=SPREAD, classes=CLASSES,
                      model=asdict(TINY), weights="sit_tiny.weights.safetensors")
    mean = draw.normal(CLASSES + 1, KINDS, 8, scale=1.5)
    share = draw.uniform(CLASSES + 1, KINDS, low=0.5, high=1.5)
    share = (share / share.sum(1, keepdim=True)).float().to(share.dtype)
    fixture.put_all("mixture.", {"mean": mean, "share": share})
    w = tiny_weights()

    def model(x, t, labels):
        return sit.forward(w, TINY, x, torch.full((len(x),), t, dtype=x.dtype), labels)

    cases = {"mixture": ((2, 2, 2), [0, 1, 2, 1], CLASSES), "sit_tiny": ((4, 8, 8), [6, 0], TINY.classes)}
    for name, (shape, labels, null) in cases.items():
        x, noise = draw.normal(len(labels), *shape), draw.normal(STEPS - 1, len(labels), *shape)
        labels = torch.tensor(labels)
        fixture.put_all(name + ".", {"x": x, "noise": noise, "y": labels})
        for path in ("linear", "cosine"):
            field = samplers.Mixture(path, mean, share, SPREAD) if name == "mixture" else model
            for kind, scale in (("plain", 1), ("guided", SCALE)):
                velocity = samplers.guided(field, labels, null, scale, INTERVAL)
                runs = {"euler": samplers.ode(velocity, x, STEPS, False), "heun": samplers.ode(velocity, x, STEPS, True),
                        "sde": samplers.sde(velocity, path, x, STEPS, noise)}
                for sampler, (states, times) in runs.items():
                    fixture.exact(f"{name}.{path}.{sampler}.{kind}", states if name == "mixture" else states[-1])
                    fixture.exact("times." + sampler, times)
        if name == "mixture":
            for path in ("linear", "cosine"):
                for t in (1.0, 0.5, 0.04):
                    velocity = samplers.Mixture(path, mean, share, SPREAD)(x, t, labels)
                    fixture.exact(f"mixture.{path}.velocity_at_{t}", velocity)
    yield fixture
    yield settings(mean, share)


def settings(mean, share):
    """Settings that SiT's scripts have, on the mixture."""
    draw, fixture = Draw(302), Fixture("sampler_settings", steps=STEPS, scale=SCALE, shift=3.0, channels=1)
    labels = torch.tensor([0, 1, 2, 1])
    x, noise = draw.normal(4, 2, 2, 2), draw.normal(STEPS - 1, 4, 2, 2, 2)
    fixture.put_all("", {"x": x, "noise": noise, "y": labels, "mean": mean, "share": share})
    for path in ("linear", "cosine"):
        field = samplers.Mixture(path, mean, share, SPREAD)
        velocity = samplers.guided(field, labels, CLASSES, 1, (0, 1))
        fixture.exact(path + ".shift", samplers.shifted_ode(velocity, x, STEPS, 3.0))
        cases = [(form, 1.0, "mean", 0.04, False)
                 for form in ("constant", "sigma", "linear", "decreasing", "increasing_decreasing")]
        cases += [("sigma", 0.5, "mean", 0.1, False), ("sigma", 1.0, "euler", 0.04, False),
                  ("sigma", 1.0, "tweedie", 0.04, False), ("sigma", 1.0, "none", 0.04, False),
                  ("sigma", 1.0, "mean", 0.04, True), ("decreasing", 0.5, "tweedie", 0.1, True)]
        for form, norm, last, size, heun in cases:
            name = f"{path}.{form}.{norm:g}.{last}.{size:g}.{'heun' if heun else 'euler'}"
            fixture.exact(name, samplers.official_sde(velocity, path, x, STEPS, noise, form, norm, last, size, heun))

        def three(state, t):
            given = field(state, t, labels)
            null = field(state, t, torch.full_like(labels, CLASSES))
            return torch.cat([null[:, :1] + SCALE * (given[:, :1] - null[:, :1]), given[:, 1:]], 1)

        fixture.exact(path + ".channels", samplers.ode(three, x, STEPS, False)[0][-1])
    return fixture
