"""mmdit: REPA's own models/mmdit.py (a clone given by --repa) with few blocks: output, taps, alignment, every gradient."""

import contextlib
import io
import sys
import types

import torch

import store
from store import Draw, Fixture

DEPTH, WIDTH, HEADS, HEAD, WORDS, TEXT = 2, 64, 2, 32, 5, 768


def public(folder):
    """Its head imports what only its training needs."""
    import importlib.util
    for name, members in {"einops": ("rearrange", "repeat"), "transformers": ("CLIPTokenizer", "T5TokenizerFast")}.items():
        if name not in sys.modules:
            made = types.ModuleType(name)
            for member in members:
                setattr(made, member, None)
            sys.modules[name] = made
    spec = importlib.util.spec_from_file_location("mmdit", f"{folder}/models/mmdit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MMDiT.cropped_pos_embed = lambda self, hw: self.pos_embed  # of the whole grid
    return module


def build(folder):
    if not folder:
        return
    module, draw = public(folder), Draw(511)
    with contextlib.redirect_stdout(io.StringIO()):
        model = module.MMDiT(input_size=8, depth=DEPTH, encoder_depth=1, z_dims=[24], projector_dim=40).to(store.compute)
    assert model.joint_blocks[0].x_block.attn.qkv.in_features == WIDTH
    values = {}
    for name, tensor in model.state_dict().items():
        if name == "pos_embed":
            continue
        fan = tensor[0].numel() if tensor.dim() > 1 else 0
        values[name] = draw.normal(*tensor.shape, scale=fan ** -0.5 if fan else 0.2)
    model.load_state_dict(values, strict=False)
    weights = Fixture("mmdit.weights", depth=DEPTH, width=WIDTH, heads=HEADS, words=WORDS)
    weights.put_all("", {name: value for name, value in values.items() if not name.startswith("projectors")})
    weights.put("pos_embed", model.pos_embed)
    yield weights

    fixture = Fixture("mmdit", depth=DEPTH, width=WIDTH, heads=HEADS, words=WORDS, weights="mmdit.weights.safetensors")
    x, t, text, v = draw.normal(2, 4, 8, 8), draw.uniform(2), draw.normal(2, WORDS, TEXT), draw.normal(2, 4, 8, 8)
    teacher = draw.normal(2, 16, 3, HEADS, HEAD)
    kept, taps = [], {}
    for k, block in enumerate(model.joint_blocks):
        block.x_block.attn.qkv.register_forward_hook(lambda _, __, out: kept.append(out))
        block.register_forward_hook(lambda _, __, out, k=k: taps.__setitem__(f"block.{k + 1}", out[1]))
    out, _ = model(x, t, context=text)
    q, k, _ = kept[0].view(2, 16, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
    tq, tk, _ = teacher.permute(2, 0, 3, 1, 4)
    logits, target = q @ k.transpose(-1, -2) / HEAD ** 0.5, tq @ tk.transpose(-1, -2) / HEAD ** 0.5
    parts = {"denoise": ((out - v) ** 2).mean(),
             "attention": -(target.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()}
    named = [(name, p) for name, p in model.named_parameters() if not name.startswith(("projectors", "pos_embed"))]
    gradients = torch.autograd.grad(parts["denoise"] + parts["attention"], [p for _, p in named])
    fixture.put_all("", {"x": x, "t": t, "text": text, "velocity": v, "teacher": teacher, "out": out})
    fixture.put_all("tap.", taps)
    for name, value in parts.items():
        fixture.exact(name, value)
    for (name, _), gradient in zip(named, gradients):  # every 37th number of each
        fixture.put("gradient." + name, gradient.flatten()[::37])
    yield fixture
