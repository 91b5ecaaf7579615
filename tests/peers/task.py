"""The work that every peer does: what tests/peers/export.lua wrote of ours, and how a peer's answer is held against it."""

import json
import os
import sys

import numpy
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "oracle"))

import sit                                                                                   # noqa: E402
import store                                                                                 # noqa: E402
import vit                                                                                   # noqa: E402

# Largest distance ||a - b|| / ||b|| of a gradient, and of a loss; PyTorch's float32 is within 1e-5 of float64 (tests/oracle).
TOLERANCE = {"float32": 1e-3, "bf16": 5e-2}


class Task:
    """A folder of export.lua for one mode: `haste`, `repa`, `free`, or `denoise` (as free, where no teacher ever was)."""

    def __init__(self, folder, mode, device):
        self.mode, self.device = mode, device
        with open(os.path.join(folder, "config.json")) as file:
            self.config = json.load(file)
        self.stage = "free" if mode == "denoise" else mode
        self.losses = self.config["losses"][self.stage]
        self.student = sit.Config(**self.config["student"])
        teacher = {**self.config["teacher"], "statistics": tuple(self.config["teacher"]["statistics"])}
        self.teacher = vit.Config(**teacher)
        # layers of the alignment, from 1; the public code has them in its model in every mode
        haste = self.config["losses"]["haste"]
        self.feature_block = haste["features"]["settings"]["block"]
        pairs = haste["attention"]["settings"]
        self.pairs = list(zip(pairs["student"], pairs["teacher"]))
        self.precision = self.config["precision"]
        weights = self.read(os.path.join(folder, "weights.safetensors"))
        self.teacher_weights = {n[len("teacher."):]: v for n, v in weights.items() if n.startswith("teacher.")}
        self.projector_weights = {n: v for n, v in weights.items() if n.startswith("projectors.")}
        self.student_weights = {n: v for n, v in weights.items() if not n.startswith(("teacher.", "projectors."))}
        # positions are fixed: those of the teacher are brought to its grid once, those of the student computed
        c = self.teacher
        self.teacher_weights["pos_embed"] = vit.resample_positions(self.teacher_weights["pos_embed"], c.stored_grid, c.grid,
                                                                   c.antialias)
        c.stored_grid = c.grid
        self.positions = sit.position_embedding(self.student.width, *self.student.grid).to(device, torch.float32)
        self.expected = self.read(os.path.join(folder, self.stage + ".safetensors"))
        if "images" not in self.expected:              # ours does not load them without a teacher
            self.expected["images"] = self.read(os.path.join(folder, "haste.safetensors"))["images"]

    def forget(self):
        """Lets go of what only a comparison needs, before memory is measured: the gradients that were expected, and the weights that a
        peer has copied."""
        self.expected = {name: self.expected[name] for name in ("latents", "images", "labels")}
        self.student_weights = self.projector_weights = None
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def read(self, path):
        return {n: torch.as_tensor(numpy.array(v)).to(self.device) for n, v in store.read(path).items()}

    def batch(self):
        """Latents, pictures uint8 [B,H,W,3] and labels, as a loader gives them."""
        e = self.expected
        return e["latents"], e["images"], e["labels"]

    def trained(self):
        """Weights of the student and, where a loss uses it, of the projector, by public name."""
        extra = self.projector_weights if "features" in self.losses else {}
        return {**self.student_weights, **extra}

    def pixels(self, images):
        """uint8 [B,H,W,3] -> [B,3,H,W] in [0,1]."""
        return images.permute(0, 3, 1, 2).to(torch.float32) / 255

    def interpolate(self, x0, noise, t):
        """x_t and the target velocity of the linear path."""
        s = t.view(-1, 1, 1, 1)
        return (1 - s) * x0 + s * noise, noise - x0

    def draw(self, x0, y):
        """What a step draws: noise, times, and labels of which some become the null label."""
        noise, t = torch.randn_like(x0), torch.rand(x0.shape[0], device=x0.device)
        dropped = torch.rand(x0.shape[0], device=x0.device) < self.config["drop_label"]
        return noise, t, torch.where(dropped, self.student.classes, y)

    def total(self, values):
        return sum(self.losses[name]["weight"] * value for name, value in values.items())

    def adamw(self, parameters, **options):
        o = self.config["optimizer"]
        return torch.optim.AdamW(parameters, lr=o["lr"], betas=o["betas"], eps=o["eps"], weight_decay=o["decay"], **options)

    def compare(self, values, gradients):
        """Largest distance of a loss and of a gradient, and whose it is; an error where one is too far."""
        errors = {}
        for name, value in values.items():
            other = self.expected["loss." + name].item()
            errors["loss " + name] = abs(float(value) - other) / max(abs(other), 0.1)     # a cosine may be near zero
        wanted = {n[len("gradient."):]: g for n, g in self.expected.items() if n.startswith("gradient.")}
        if wanted.keys() != gradients.keys():
            raise SystemExit(f"other gradients: {sorted(wanted.keys() ^ gradients.keys())}")
        for name, g in wanted.items():
            mine = gradients[name].reshape(g.shape).to(torch.float32)
            errors["gradient " + name] = ((mine - g).norm() / g.norm().clamp(min=1e-12)).item()
        worst = sorted(errors, key=errors.get)[-1]
        bad = [f"{name}: {e:.2e}" for name, e in errors.items() if not e <= TOLERANCE[self.precision]]
        if bad:
            raise SystemExit(f"the peer's losses or gradients differ from ours, so nothing is timed: {', '.join(bad[:8])}")
        return {"compared": len(errors), "worst": worst, "error": errors[worst],
                "losses": {name: float(value) for name, value in values.items()}}
