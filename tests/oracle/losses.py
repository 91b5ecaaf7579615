"""Denoising and alignment losses."""

import torch
import torch.nn.functional as F

from sit import linear


def denoise(velocity, target):
    return ((velocity - target) ** 2).mean()


def draw_projector(draw, width, hidden, out):
    w = {}
    for layer, (columns, rows) in {0: (width, hidden), 2: (hidden, hidden), 4: (hidden, out)}.items():
        w.update(draw.linear(f"projectors.0.{layer}", rows, columns, gain=1.5))
    return w


def project(w, h):
    for layer in (0, 2):
        h = F.silu(linear(w, f"projectors.0.{layer}", h))
    return linear(w, "projectors.0.4", h)


def resample_tokens(x, old, new):
    """[..., rows*columns, d] bilinearly (half-pixel centres, no antialias) from grid `old` to grid `new`."""
    if tuple(old) == tuple(new):
        return x
    planes = x.reshape(-1, *old, x.shape[-1]).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=tuple(new), mode="bilinear", align_corners=False)
    return planes.permute(0, 2, 3, 1).reshape(*x.shape[:-2], new[0] * new[1], x.shape[-1])


def feature_alignment(student, teacher):
    """Minus the mean cosine of token vectors [B, N, z]; norms are at least 1e-12."""
    return -(F.normalize(student, dim=-1, eps=1e-12) * F.normalize(teacher, dim=-1, eps=1e-12)).sum(-1).mean()


def attention_alignment(pairs):
    """Mean over pairs of (student q, student k, teacher logits); q, k [B, H, N, d], logits [B, H', N, N].

    The first min(H, H') heads of each side are compared.
    """
    total = 0
    for q, k, teacher in pairs:
        heads = min(q.shape[1], teacher.shape[1])
        logits = q[:, :heads] @ k[:, :heads].transpose(-1, -2) / q.shape[-1] ** 0.5
        target = teacher[:, :heads].softmax(-1)
        total = total - (target * logits.log_softmax(-1)).sum(-1).mean()
    return total / len(pairs)
