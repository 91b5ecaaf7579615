"""basics: small operations with gradients at edge sizes. optimizer, lion: AdamW and Lion with clip, EMA, warm-up."""

import torch
import torch.nn.functional as F

from lion import Lion
from store import Draw, Fixture

SIZES = (1, 31, 33, 257)
ADAMW = {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "decay": 0.1, "clip": 1.0, "ema": 0.9, "warmup": 3, "steps": 5}
LION = {"lr": 1e-2, "betas": [0.9, 0.99], "decay": 0.1, "clip": 1.0, "ema": 0.9, "warmup": 3, "steps": 5}


def differentiate(fixture, case, function, draw, **inputs):
    """Inputs, out, upstream gradient and grad_<input> under `case`."""
    leaves = {name: v.requires_grad_() for name, v in inputs.items()}
    out = function(**leaves)
    upstream = draw.normal(*out.shape)
    out.backward(upstream)
    fixture.put_all(case + ".", {**leaves, "out": out, "upstream": upstream})
    fixture.put_all(case + ".grad_", {name: v.grad for name, v in leaves.items()})


def modulate(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def build_basics():
    draw, fixture = Draw(501), Fixture("basics", layernorm_eps=1e-6)
    activations = {"gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "gelu": lambda x: F.gelu(x),
                   "silu": lambda x: F.silu(x)}
    for n in SIZES:
        for name, function in activations.items():
            differentiate(fixture, f"{name}.{n}", function, draw, x=draw.normal(n, scale=1.5))
        differentiate(fixture, f"softmax.{n}", lambda x: x.softmax(-1), draw, x=draw.normal(3, n, scale=2))
        differentiate(fixture, f"log_softmax.{n}", lambda x: x.log_softmax(-1), draw, x=draw.normal(3, n, scale=2))
        differentiate(fixture, f"layernorm.{n}", lambda x: F.layer_norm(x, (n,), eps=1e-6), draw, x=draw.normal(3, n))
        differentiate(fixture, f"layernorm_affine.{n}", lambda x, weight, bias: F.layer_norm(x, (n,), weight, bias, 1e-6),
                      draw, x=draw.normal(3, n), weight=draw.normal(n), bias=draw.normal(n))
        differentiate(fixture, f"layernorm_modulate.{n}", modulate, draw, x=draw.normal(2, 3, n),
                      shift=draw.normal(2, n), scale=draw.normal(2, n))
        labels = torch.tensor([0, n - 1, n // 2, 0, n // 3])
        logits = draw.normal(5, n, scale=2)
        logits[3] = 200.0 * (-1.0) ** torch.arange(n)
        logits[4] = -logits[3]
        logits.requires_grad_()
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        fixture.put_all(f"cross_entropy.{n}.", {"logits": logits, "labels": labels, "grad": logits.grad})
        fixture.exact(f"cross_entropy.{n}.loss", loss)
    x = torch.tensor([-100.0, -20, -10, -6, -1e-3, 0, 1e-3, 6, 10, 20, 100]).to(draw.normal(1).dtype)
    for name, function in activations.items():
        differentiate(fixture, f"{name}.edges", function, draw, x=x.clone())
    extreme = 200 * draw.uniform(3, 33, low=-1).round()
    differentiate(fixture, "softmax.extreme", lambda x: x.softmax(-1), draw, x=extreme)
    differentiate(fixture, "layernorm.offset", lambda x: F.layer_norm(x, (257,), eps=1e-6), draw,
                  x=draw.normal(3, 257, mean=100.0))
    return fixture


def build_optimizer(fixture_name, seed, settings, optimizer_of, moments):
    """Four tensors together: warm-up, clip over all of them, decoupled decay, EMA."""
    draw, fixture = Draw(seed), Fixture(fixture_name, **settings)
    w = {str(n): draw.normal(n).requires_grad_() for n in SIZES}
    ema = {name: v.detach().clone() for name, v in w.items()}
    fixture.put_all("start.", w)
    optimizer = optimizer_of(w.values())
    for step in range(1, settings["steps"] + 1):
        rate = settings["lr"] * min(1, step / settings["warmup"])
        optimizer.param_groups[0]["lr"] = rate
        for v in w.values():                             # norms above and below the clip, by turns
            v.grad = draw.normal(*v.shape, scale=(1.0, 0.01)[step % 2])
        fixture.put_all(f"grad{step}.", {name: v.grad for name, v in w.items()})
        fixture.exact(f"rate{step}", rate)
        fixture.exact(f"norm{step}", torch.nn.utils.clip_grad_norm_(w.values(), settings["clip"], foreach=False))
        optimizer.step()
        for name, v in w.items():
            ema[name].mul_(settings["ema"]).add_(v.detach(), alpha=1 - settings["ema"])
        fixture.put_all(f"after{step}.", w)
        fixture.put_all(f"ema{step}.", ema)
    for name, v in w.items():
        for letter, moment in moments.items():
            fixture.put(f"{letter}.{name}", optimizer.state[v][moment])
    return fixture


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=ADAMW["lr"], betas=ADAMW["betas"], eps=ADAMW["eps"],
                             weight_decay=ADAMW["decay"], foreach=False)


def lion(parameters):
    return Lion(parameters, lr=LION["lr"], betas=LION["betas"], weight_decay=LION["decay"])


def build():
    yield build_basics()
    yield build_optimizer("optimizer", 502, ADAMW, adamw, {"m": "exp_avg", "v": "exp_avg_sq"})
    yield build_optimizer("lion", 503, LION, lion, {"m": "exp_avg"})
