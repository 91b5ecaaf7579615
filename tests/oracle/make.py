"""Writes fixtures/. With --check, computes everything again in float32 and says how far that is from them.

    python3 tests/oracle/make.py [--vit-tiny FILE] [--dit FOLDER] [--repa FOLDER] [--encoders] [--check]
"""

import argparse
import sys
from pathlib import Path

import numpy
import torch

import build_alignment
import build_autoencoder
import build_basics
import build_convolution
import build_diffusion
import build_dopri5
import build_encoders
import build_frechet
import build_haste
import build_mmdit
import build_inception
import build_official
import build_ops
import build_parameters
import build_pytorch
import build_samplers
import build_student
import build_teacher
import names
import store

FOLDER = Path(__file__).parent / "fixtures"


def fixtures(vit_tiny, encoders, dit, repa):
    yield from build_student.build()
    yield from build_haste.build()
    yield from build_parameters.build()
    yield from build_teacher.build(vit_tiny)
    if encoders:
        yield from build_encoders.build()
    yield from build_frechet.build()
    yield from build_inception.build()
    yield from build_samplers.build()
    yield from build_dopri5.build()
    yield from build_alignment.build()
    yield from build_basics.build()
    yield from build_convolution.build()
    yield from build_autoencoder.build()
    yield from build_official.build()
    yield from build_diffusion.build(dit)
    yield from build_mmdit.build(repa)
    yield from build_ops.build()


def compare(fixture):
    """The worst tensors of a fixture by |a - b| / |b| (Euclidean norms); NaN and infinities are equal to themselves."""
    stored = store.read(FOLDER / (fixture.name + ".safetensors"))
    if set(stored) != set(fixture.tensors):
        sys.exit(f"{fixture.name}: names differ: {sorted(set(stored) ^ set(fixture.tensors))}")
    rows = []
    for name, value in fixture.tensors.items():
        a, b = value.astype(numpy.float64), stored[name].astype(numpy.float64)
        equal = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
        size = numpy.linalg.norm(b[numpy.isfinite(b)])
        rows.append((numpy.linalg.norm(a[~equal] - b[~equal]) / (size or 1.0), name))
    rows.sort(reverse=True)
    shown = "  ".join(f"{name} {error:.1e}" for error, name in rows[:4])
    print(f"{fixture.name:24} {shown}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vit-tiny", metavar="FILE", help="vit_tiny_patch16_224.safetensors, for vit_tiny_real")
    parser.add_argument("--dit", metavar="FOLDER", help="a clone of facebookresearch/DiT, for diffusion")
    parser.add_argument("--repa", metavar="FOLDER", help="a clone of sihyun-yu/REPA, for mmdit")
    parser.add_argument("--encoders", action="store_true", help="encoder_* too, which takes transformers and timm")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.check:
        store.compute = torch.float32
    FOLDER.mkdir(exist_ok=True)
    for fixture in fixtures(options.vit_tiny, options.encoders, options.dit, options.repa):
        if options.check:
            compare(fixture)
        else:
            store.write(FOLDER / (fixture.name + ".safetensors"), fixture.tensors,
                        {**fixture.metadata(), "torch": torch.__version__.split("+")[0]})
    if not options.check:
        build_pytorch.write(FOLDER / "pytorch")
        build_official.write(FOLDER / "pytorch")
        for file, arguments in names.FILES.items():
            (FOLDER / file).write_text(names.text(*arguments))
        (FOLDER / "autoencoder_kl.names").write_text(build_autoencoder.names())
    if not options.vit_tiny:
        print("vit_tiny_real left as it is: give --vit-tiny FILE to make it again")
    if not options.repa:
        print("mmdit left as it is: give --repa FOLDER to make it again")
    if not options.dit:
        print("diffusion left as it is: give --dit FOLDER to make it again")


if __name__ == "__main__":
    main()
