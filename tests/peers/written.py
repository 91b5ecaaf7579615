"""A well-written PyTorch step: fused attention everywhere, logits of the aligned layers alone, fused AdamW, foreach EMA."""

import torch
import torch.nn.functional as F

import losses
import sit
import vit


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Written:
    def __init__(self, task, compiled=False, compile_mode="default"):
        self.task = task
        self.parameters = {n: v.clone().requires_grad_() for n, v in task.trained().items()}
        self.list = list(self.parameters.values())
        self.ema = [p.detach().clone() for p in self.list]
        self.optimizer = task.adamw(self.list, fused=True)
        self.layers = [t for _, t in task.pairs] if "attention" in task.losses else []
        if compiled:
            self.teach = torch.compile(self.teach, mode=compile_mode)
            self.forward = torch.compile(self.forward, mode=compile_mode)

    def autocast(self):
        return torch.autocast(self.task.device, torch.bfloat16, enabled=self.task.precision == "bf16")

    @torch.no_grad()
    def teach(self, images):
        """Patch tokens, and the logits of the aligned layers."""
        task = self.task
        taps = vit.forward(task.teacher_weights, task.teacher, task.pixels(images), logits=self.layers, attend=attend)
        return taps["patches"], [taps[f"logits.{layer}"] for layer in self.layers]

    def forward(self, x0, noise, t, y, patches, logits):
        """The losses by name."""
        task, taps = self.task, {}
        x_t, target = task.interpolate(x0, noise, t)
        velocity = sit.forward({**self.parameters, "pos_embed": task.positions}, task.student, x_t, t, y, taps, attend=attend)
        values = {"denoise": losses.denoise(velocity.float(), target)}
        if "features" in task.losses:
            projected = losses.project(self.parameters, taps[f"block.{task.feature_block}"])
            values["features"] = losses.feature_alignment(projected.float(), patches.float())
        if "attention" in task.losses:
            values["attention"] = losses.attention_alignment(
                [(taps[f"q.{s}"], taps[f"k.{s}"], theirs) for (s, _), theirs in zip(task.pairs, logits)])
        return values

    def gradients(self, x0, noise, t, y, images):
        """The losses; gradients are in the parameters."""
        with self.autocast():
            patches, logits = self.teach(images) if "features" in self.task.losses else (None, [])
            values = self.forward(x0, noise, t, y, patches, logits)
        self.task.total(values).backward()
        return values

    def update(self):
        torch.nn.utils.clip_grad_norm_(self.list, self.task.config["optimizer"]["clip"], foreach=True)
        self.optimizer.step()
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.list], 1 - self.task.config["ema"])
        self.optimizer.zero_grad(set_to_none=True)

    def step(self):
        x0, images, y = self.task.batch()
        self.gradients(x0, *self.task.draw(x0, y), images)
        self.update()
