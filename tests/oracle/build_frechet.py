"""frechet: distances between sets of features, by numpy's general eigenvalues of the product of the covariances."""

import numpy
import torch

from store import Draw, Fixture


def distance(a, b):
    a, b = a.numpy(), b.numpy()
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    ca, cb = numpy.cov(a, rowvar=False), numpy.cov(b, rowvar=False)
    roots = numpy.sqrt(numpy.linalg.eigvals(ca @ cb).astype(complex)).real.sum()
    return torch.tensor([shift + numpy.trace(ca) + numpy.trace(cb) - 2 * roots])


def build():
    draw = Draw(701)
    fixture = Fixture("frechet")
    mix = draw.normal(33, 33, scale=0.5)
    cases = {
        "wide": (draw.normal(200, 33) @ mix, draw.normal(150, 33) @ (mix + 0.1) + 0.3),
        "few": (draw.normal(20, 33), draw.normal(200, 33) * 2),       # the first covariance has rank 19
        "graded": (draw.normal(100, 33) * torch.logspace(0, -6, 33), draw.normal(100, 33) * torch.logspace(0, -6, 33)),
        "two": (draw.normal(50, 2), draw.normal(60, 2) + 1),
    }
    for name, (a, b) in cases.items():
        a, b = a.float().double(), b.float().double()
        fixture.put_all(name + ".", {"a": a, "b": b})
        fixture.exact(name + ".distance", distance(a, b))
    yield fixture
