"""dopri5: torchdiffeq's adaptive steps on an exact field, each sample by itself, and the flow's end to 1e-11."""

import torch
import torchdiffeq

import samplers
from store import Draw, Fixture

CLASSES, KINDS, SPREAD, SHAPE, LABELS = 3, 2, 0.5, (2, 2, 2), [0, 1, 2, 1]
RTOL, ATOL, SCALE, INTERVAL = 1e-3, 1e-6, 1.65, (0.25, 0.72)


class Flow(torch.nn.Module):
    """From noise at s = 0 to data at s = 1; keeps where steps begin, until one is tried that goes past the end."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity, self.begun, self.past = velocity, [], False

    def forward(self, s, x):
        return -self.velocity(x, 1 - s.item())

    def callback_step(self, s, x, length):
        if not self.past and (not self.begun or self.begun[-1][0] != 1 - s.item()):
            self.begun.append((1 - s.item(), x.clone()))
        self.past = self.past or s.item() + length.item() > 1


def solve(velocity, x, rtol, atol):
    flow = Flow(velocity)
    ends = torch.tensor([0.0, 1.0], dtype=x.dtype)
    return torchdiffeq.odeint(flow, x, ends, rtol=rtol, atol=atol, method="dopri5")[1], flow.begun


def build():
    draw = Draw(302)
    fixture = Fixture("dopri5", rtol=RTOL, atol=ATOL, scale=SCALE, interval=INTERVAL, spread=SPREAD, classes=CLASSES,
                      torchdiffeq=torchdiffeq.__version__)
    mean = draw.normal(CLASSES + 1, KINDS, 8, scale=1.5)
    share = draw.uniform(CLASSES + 1, KINDS, low=0.5, high=1.5)
    share = (share / share.sum(1, keepdim=True)).float().to(share.dtype)
    x = draw.normal(len(LABELS), *SHAPE)
    fixture.put_all("", {"mean": mean, "share": share, "x": x, "y": torch.tensor(LABELS)})
    for path in ("linear", "cosine"):
        field = samplers.Mixture(path, mean, share, SPREAD)
        for kind, scale in (("plain", 1), ("guided", SCALE)):
            exact = []
            for k, label in enumerate(LABELS):
                velocity = samplers.guided(field, torch.tensor([label]), CLASSES, scale, INTERVAL)
                _, begun = solve(velocity, x[k:k + 1], RTOL, ATOL)
                name = f"{path}.{kind}.{k + 1}."
                fixture.exact(name + "times", torch.tensor([t for t, _ in begun], dtype=torch.float64))
                fixture.exact(name + "states", torch.cat([state for _, state in begun]))
                if kind == "plain":
                    exact.append(solve(velocity, x[k:k + 1], 1e-11, 1e-12)[0])
            if exact:
                fixture.exact(path + ".exact", torch.cat(exact))
    yield fixture
