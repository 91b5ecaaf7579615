"""The official SiT: a checkpoint as its train.py saves it, and what its network says. Its time runs the other way: 1 is data."""

import argparse

import torch

import sit
import store

CONFIG = sit.Config(width=16, depth=1, heads=2, patch=2, channels=4, height=4, columns=6, classes=3, sigma=True)


def drawn():
    draw = store.Draw(16)
    averages, weights = sit.draw_weights(CONFIG, draw), sit.draw_weights(CONFIG, draw)
    x, t = draw.normal(3, 4, 4, 6), draw.uniform(3)
    t[0], t[1] = 0.0, 1.0
    return averages, weights, x, t, torch.tensor([0, 2, 3])


def build():
    averages, _, x, t, y = drawn()
    fixture = store.Fixture("sit_official", **vars(CONFIG))
    velocity = sit.forward(averages, CONFIG, x, t, y).chunk(2, 1)[0]
    fixture.put_all("", {"x": x, "t": t, "y": y, "velocity": velocity})
    yield fixture


def write(folder):
    averages, weights, *_ = drawn()
    plain = [{name: value.to(torch.float32) for name, value in each.items()} for each in (weights, averages)]
    torch.save({"model": plain[0], "ema": plain[1], "opt": {"state": {}, "param_groups": []},
                "args": argparse.Namespace(model="SiT-XL/2", learn_sigma=True)}, folder / "sit_official.pt")
