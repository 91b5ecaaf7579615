#!/usr/bin/env python3
"""Builds the program and its plugin for one kind of GPU on a machine that has a toolkit, and packs both for a machine that has
the GPU and no time to build: .gpu/built.tgz (git-ignored), to be carried with the working tree.

    tests/gpu/built.py [90]                                      # compute capability 9.0: H100, H200
    tests/gpu/run first --built .gpu/built.tgz                   # there
    tests/gpu/built.py --rehearse                                # the stand-in of tests/cuda_on_cpu, for run --rehearse --built

cuBLAS and cuDNN are found as tests/gpu/run finds them. It is refused there where the sources are others; then they are built.
"""

import argparse
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile

from work import ROOT, Failure, library, toolkits

SOURCES = ("CMakeLists.txt", "base", "kernels", "runtime")
LIBRARIES = ("libcudart.so.*", "libcublasLt.so.*", "libcudnn.so.*", "libnvrtc.so.*")  # of the plugin; others lie beside them
MANIFEST = "built.json"


def digest():
    """Of all that is compiled: files by name and content."""
    paths = []
    for source in SOURCES:
        place = os.path.join(ROOT, source)
        paths += [place] if os.path.isfile(place) else glob.glob(os.path.join(place, "**"), recursive=True)
    total = hashlib.sha256()
    for path in sorted(path for path in paths if os.path.isfile(path)):
        total.update(os.path.relpath(path, ROOT).encode())
        with open(path, "rb") as file:
            total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()


def flags(architecture):
    """For cmake: one kind of GPU, cuBLAS and cuDNN from where they are."""
    found = ["-DPERIGEE_TESTS=OFF", "-DPERIGEE_WERROR=OFF"]  # another compiler may warn of something
    if architecture:
        found.append(f"-DPERIGEE_CUDA_ARCHITECTURES={architecture}")
    for variable, header in (("PERIGEE_CUBLAS", "cublasLt.h"), ("PERIGEE_CUDNN", "cudnn.h")):
        folder = library(variable, header)
        found += [f"-D{variable}={folder}"] if folder else []
    return found


def has_cudnn(build):
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as file:
        return "PERIGEE_HAS_CUDNN:INTERNAL=yes" in file.read()


# ---- here -------------------------------------------------------------------------------------------------------

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", nargs="?", default="90", help="compute capability without its dot (90)")
    parser.add_argument("--rehearse", action="store_true", help="the stand-in instead of the plugin")
    parser.add_argument("--out", metavar="FILE", default=os.path.join(ROOT, ".gpu", "built.tgz"))
    options = parser.parse_args()
    target = "perigee_cuda_on_cpu" if options.rehearse else "perigee_cuda"
    build = os.path.abspath(os.environ.get("PERIGEE_BUILD") or os.path.join(ROOT, "build-gpu"))
    chosen = ["-DPERIGEE_TESTS=ON"] if options.rehearse else flags(options.architecture)
    given = os.environ.get("PERIGEE_CMAKE_FLAGS", "").split()
    subprocess.run(["cmake", "-S", ROOT, "-B", build, *chosen, *given], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", build, "--target", "perigee_program", target, "-j", str(os.cpu_count())], check=True)
    manifest = {"sources": digest(), "plugin": f"lib{target}.so", "architecture": None if options.rehearse else options.architecture,
                "cudnn": options.rehearse or has_cudnn(build)}
    with open(os.path.join(build, MANIFEST), "w", encoding="utf-8") as file:
        json.dump(manifest, file)
    os.makedirs(os.path.dirname(options.out), exist_ok=True)
    with tarfile.open(options.out, "w:gz") as archive:
        archive.add(os.path.join(build, MANIFEST), MANIFEST)
        for name in ("perigee", "libperigee.so", manifest["plugin"]):
            archive.add(os.path.join(build, "runtime", name), "runtime/" + name)
    print(f"{options.out}: {os.path.getsize(options.out) / 2 ** 20:.1f} MiB, {manifest}")


# ---- there ------------------------------------------------------------------------------------------------------

def library_folders():
    """Where the plugin's libraries are on this machine: those that its own path names are the other machine's."""
    places = [os.path.join(folder, name) for folder in toolkits() for name in ("lib64", "lib", os.path.join("targets", "*", "lib"))]
    places += [os.path.join(path, "nvidia", "*", "lib") for path in sys.path]
    found = []
    for name in LIBRARIES:
        hits = [hit for place in places for hit in glob.glob(os.path.join(place, name))]
        found += [os.path.dirname(hits[0])] if hits else []
    return list(dict.fromkeys(found))


def unpack(work, path, capability):
    """Puts what was packed where a build would be, so that ./perigee takes it for one. Returns its manifest."""
    try:
        with tarfile.open(path) as archive:
            manifest = json.load(archive.extractfile(MANIFEST))
            if manifest["sources"] != digest():
                raise Failure(f"{path} was built from other sources")
            if manifest["architecture"] != capability:
                raise Failure(f"{path} was built for compute capability {manifest['architecture']}, this is {capability}")
            archive.extractall(work.build, filter="data")
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise Failure(f"{path}: {error}") from error
    with open(os.path.join(work.build, ".built"), "w", encoding="utf-8") as file:
        file.write(f"{ROOT}\n\n")
    folders = [os.path.join(work.build, "runtime"), *library_folders(), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    work.environment.update(PERIGEE_CMAKE_FLAGS="", LD_LIBRARY_PATH=":".join(folders),
                            PERIGEE_CUDA_LIBRARY=os.path.join(work.build, "runtime", manifest["plugin"]))
    return manifest


def capability_of(text):
    """"90" of a line of nvidia-smi's."""
    found = re.search(r", (\d+)\.(\d+),", text)
    return "".join(found.groups()) if found else None


if __name__ == "__main__":
    main()
