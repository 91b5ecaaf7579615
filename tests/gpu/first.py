"""Stages of the first call on a machine with a GPU: what it is, whether a kernel runs at all, races, the step op by op, and the
memory of a small batch."""

import concurrent.futures
import json
import os
import re
import shutil
import sys

from work import HERE, ROOT, Failure

SIT = os.path.join(ROOT, "tests", "peers", "sit.lua")
TINY = ["--model", "tiny", "--teacher", "tiny", "--hidden", "32", "--batch", "2"]
RACE_SECONDS = 125  # from when `ops` begins: the limits of `ops` and `races` together
RACES = ("attention", "attention_alignment", "layernorm", "reduce", "softmax")  # kernels whose threads meet in shared memory


def facts(work, result, _):
    """What the machine has; nothing here fails."""
    asked = {"gpu": ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version,clocks.sm,clocks.max.sm", "--format=csv,noheader"],
             "nvcc": ["nvcc", "--version"], "compiler": ["gcc", "--version"], "cmake": ["cmake", "--version"],
             "torch": [sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"]}
    for name, command in asked.items():
        try:
            _, text = work.command(command, may_fail=True)
            lines = text.strip().splitlines() or ["nothing"]
            result[name] = lines[-1 if name in ("nvcc", "torch") else 0]
        except Failure as failure:
            result[name] = str(failure)
    result["processors"] = len(os.sched_getaffinity(0))
    result["tools"] = {name: shutil.which(name) is not None for name in ("ninja", "pkg-config", "ncu", "compute-sanitizer")}


def ops_command(work, dtypes, *ops):
    paths = [os.path.join(ROOT, "tests", "ops", op + ".lua") for op in ops]
    return [os.path.join(work.build, "runtime", "perigee"), "run", os.path.join(HERE, "ops.lua"), "cuda", dtypes, *paths]


def smoke(work, result, _):
    """Two ops, waiting after every call, so that the one that fails is named."""
    text = work.command(ops_command(work, "float32,bfloat16", "matmul", "layernorm"),
                        environment={"PERIGEE_HOME": ROOT, "PERIGEE_CUDA_CHECK": "1", "OMP_NUM_THREADS": "2"})
    found = json.loads(text.strip().splitlines()[-1])
    result["checks"] = found["passed"]
    if found["failed"]:
        raise Failure(f"{len(found['failed'])} checks failed, {found['passed']} passed; the first: {found['failed'][0]}")


# ---- races ------------------------------------------------------------------------------------------------------

def race(work, op, seconds):
    """What racecheck says of an op's kernels, our own where there are others: hazards, or None with the reason."""
    sanitizer = [] if work.rehearse else ["compute-sanitizer", "--tool", "racecheck", "--print-limit", "3"]
    try:
        _, text = work.command([*sanitizer, *ops_command(work, "bfloat16", op)], may_fail=True, seconds=seconds,
                               environment={"PERIGEE_HOME": ROOT, "PERIGEE_ATTENTION": "own", "OMP_NUM_THREADS": "1"})
    except Failure as failure:
        return {"hazards": None, "text": str(failure)}
    if work.rehearse:
        return {"hazards": 0 if '"passed"' in text else None, "text": "not under racecheck: a rehearsal"}
    summary = re.search(r"RACECHECK SUMMARY: (\d+) hazards", text)
    lines = [line for line in text.splitlines() if "=========" in line]
    return {"hazards": int(summary[1]) if summary else None, "text": "\n".join(lines[:12]) or text[-600:]}


def start_races(work):
    """Beside other stages: racecheck is slow, and leaves the GPU idle most of the time."""
    pool = concurrent.futures.ThreadPoolExecutor(len(RACES))
    work.races = {op: pool.submit(race, work, op, RACE_SECONDS) for op in RACES}


def races(work, result, _):
    if not work.races:
        start_races(work)
    result["by_op"] = {op: future.result() for op, future in work.races.items()}
    bad = [f"{op}: {found['hazards']} hazards: {found['text']}" for op, found in result["by_op"].items() if found["hazards"]]
    unknown = [f"{op}: {found['text']}" for op, found in result["by_op"].items() if found["hazards"] is None]
    if bad or unknown:
        raise Failure("; ".join(bad + unknown)[:1500])


# ---- the step, op by op -----------------------------------------------------------------------------------------

def run_bench(work, name, *options):
    path = work.path(name + ".json")
    if os.path.exists(path):
        os.remove(path)
    work.perigee("bench", SIT, "--precision", "bf16", "--device", "cuda", "--synthetic", "--json", path, *options)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def bench(work, result, _):
    """HASTE at SiT-XL/2, batch 256 in one piece, in three stages; and the peak of PyTorch's matmul in the same minute."""
    size = TINY if work.rehearse else ["--model", "xl_2", "--teacher", "dinov2_b", "--batch", "256"]
    steps = ["--warmup", "2", "--steps", "2" if work.rehearse else "4", "--profiled", "1" if work.rehearse else "2", "--calls", "25"]
    result["bench"] = run_bench(work, "bench", *size, *steps)
    result["choices"] = {op: work.choices(op) for op in ("attention", "convolution")}
    try:
        where = ["cpu", "64"] if work.rehearse else ["cuda", "8192"]
        peak = work.command([sys.executable, os.path.join(HERE, "peak.py"), *where])
        result["torch_peak"] = json.loads(peak.strip().splitlines()[-1])
    except Failure as failure:
        result["torch_peak"] = {"error": str(failure)}


def memory32(work, result, _):
    """Peak memory at the batch that memory was published for: 32 images a device."""
    size = TINY if work.rehearse else ["--model", "xl_2", "--teacher", "dinov2_b", "--batch", "32"]
    result["peaks"] = {}
    for stage in ("haste", "repa"):
        found = run_bench(work, "memory32", *size, "--stage", stage, "--warmup", "1", "--steps", "2", "--profiled", "1")
        result["peaks"][stage] = found["stages"][0]["tensor_bytes"]
