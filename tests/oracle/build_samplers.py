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
