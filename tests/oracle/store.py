"""Reading and writing .safetensors, and the number type that everything is computed in."""

import json
import struct

import numpy
import torch

# Inputs and weights are drawn in float32 and raised to this type; `make.py --check` sets float32 instead.
compute = torch.float64

KINDS = {"F32": numpy.float32, "F64": numpy.float64, "I64": numpy.int64, "U8": numpy.uint8}


def write(path, tensors, metadata):
    header, chunks, offset = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors):
        array = numpy.ascontiguousarray(tensors[name])
        kind = next(k for k, v in KINDS.items() if v == array.dtype.type)
        chunks.append(array.tobytes())
        header[name] = {"dtype": kind, "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))


def read(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: numpy.frombuffer(data[slice(*entry["data_offsets"])], KINDS[entry["dtype"]])
            .reshape(entry["shape"]) for name, entry in header.items()}


def raised(tensors):
    """float32 arrays or tensors as tensors of the computing type."""
    return {name: torch.as_tensor(numpy.array(value)).to(compute) for name, value in tensors.items()}


class Fixture:
    """Tensors on their way to fixtures/<name>.safetensors."""

    def __init__(self, name, **settings):
        self.name, self.tensors, self.settings = name, {}, settings

    def put(self, name, value):
        """float32, or int64 where the value is whole numbers."""
        value = torch.as_tensor(value).detach()
        value = value if value.dtype == torch.int64 else value.to(torch.float32)
        self.tensors[name] = value.reshape(value.shape or (1,)).numpy().copy()

    def exact(self, name, value):
        """float64; a single number becomes a tensor of shape [1]."""
        value = torch.as_tensor(value).detach().to(torch.float64)
        self.tensors[name] = value.reshape(value.shape or (1,)).numpy().copy()

    def put_all(self, prefix, values):
        for name, value in values.items():
            self.put(prefix + name, value)

    def metadata(self):
        return {"settings": json.dumps(self.settings, sort_keys=True)}


class Draw:
    """Seeded random numbers, rounded to float32 so that what is stored is exactly what was used."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape, scale=1.0, mean=0.0):
        return (torch.randn(shape, generator=self.generator) * scale + mean).to(compute)

    def uniform(self, *shape, low=0.0, high=1.0):
        return (torch.rand(shape, generator=self.generator) * (high - low) + low).to(compute)

    def linear(self, name, rows, columns, gain=1.0):
        """Weight and bias of a linear layer whose outputs are about as large as its inputs."""
        return {name + ".weight": self.normal(rows, columns, scale=gain / columns ** 0.5),
                name + ".bias": self.normal(rows, scale=0.2 * gain)}
