"""Files as PyTorch writes them, for the reader of .pt and .pth files. What they hold is simple enough for the tests to say it again."""

import argparse
import collections

import torch

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
SIGNED = ["int8", "int16", "int32", "int64"]
UNSIGNED = ["uint8", "uint16", "uint32", "uint64"]


def dtypes():
    """One tensor [2,3] of every dtype: -2 ... 3, without the sign 0 ... 5."""
    signed = torch.arange(-2, 4).reshape(2, 3)
    tensors = {name: signed.to(getattr(torch, name)) for name in FLOATS + SIGNED}
    tensors |= {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in UNSIGNED}
    tensors["bool"] = torch.tensor([[True, False, True], [False, False, True]])
    return tensors


def views():
    """Strided, shared, offset and empty tensors."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {"base": base, "transposed": base.t(), "corner": base[1:3, 2:5], "every_second": base[:, ::2], "row": base[3],
            "scalar": base[2, 1], "empty": base[:0], "expanded": base[0, :1].expand(2, 3),
            "parameter": torch.nn.Parameter(torch.ones(2))}


def checkpoint():
    """What SiT's and REPA's train.py save."""
    weights = collections.OrderedDict([("blocks.0.weight", torch.ones(2, 3)), ("blocks.0.bias", torch.zeros(2))])
    averages = collections.OrderedDict([("blocks.0.weight", torch.full((2, 3), 2.0)), ("blocks.0.bias", torch.ones(2))])
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-4)
    parameter.sum().backward()
    optimizer.step()
    args = argparse.Namespace(model="SiT-XL/2", image_size=256, cfg_scale=1.5, resume=None, fp16=True, enc=["a", "b"], big=2 ** 40,
                              negative=-7, text="é")
    return {"model": weights, "ema": averages, "opt": optimizer.state_dict(), "args": args, "steps": 400000, "pair": (1, 2.5),
            "dtype": torch.bfloat16, "size": torch.Size([2, 3])}


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(3, 2).half()
        self.scale = torch.nn.Parameter(torch.full((2,), 3.0))
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x):
        return self.inner(x) * self.scale


def write(folder):
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.save(dtypes(), folder / "dtypes.pt")
    torch.save(views(), folder / "views.pt")
    torch.save(checkpoint(), folder / "checkpoint.pt")
    torch.save({**views(), "args": argparse.Namespace(a=1)}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    tower = Tower()
    with torch.no_grad():
        tower.inner.weight.copy_(torch.arange(6).reshape(2, 3))
        tower.inner.bias.fill_(0.5)
    torch.jit.save(torch.jit.script(tower), folder / "torchscript.pt")
    torch.save({"x": torch.ones(2, dtype=torch.complex64)}, folder / "complex.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
