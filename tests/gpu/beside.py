"""Beside PyTorch: tests/peers/run for each model, mode and peer, one at a time, so that what time ends loses no more than one."""

import json
import os
import statistics
import sys

from work import HERE, ROOT, Failure

RUN = os.path.join(ROOT, "tests", "peers", "run")
SIT = os.path.join(ROOT, "tests", "peers", "sit.lua")
REHEARSAL = {"tiny": ["--model", "tiny", "--teacher", "tiny", "--batch", "2", "--hidden", "32"]}


def models(work):
    """By model: its options for tests/peers/sit.lua."""
    if work.rehearse:
        return REHEARSAL
    chosen = {}
    for entry in work.options.models.split(","):
        model, _, batch = entry.partition(":")
        chosen[model] = ["--model", model, "--teacher", "dinov2_b", "--batch", batch or "32", "--precision", "bf16"]
    return chosen


def flops(work, recipe):
    """FLOPs of a step by stage, from the plan: what the work takes, for whoever does it."""
    plan = json.loads(work.perigee("plan", SIT, "--device", "cpu", "--json", *recipe))  # a GPU would time its algorithms first
    return {stage["stage"]: stage["flops"] for stage in plan["stages"]}


def run(work, model, recipe, mode, peer):
    out = work.path(f"peers-{model}-{mode}-{peer}.json")
    if os.path.exists(out):
        os.remove(out)
    command = [sys.executable, RUN, "--device", "cuda", "--modes", mode, "--peers", peer,
               "--threads", "1" if work.rehearse else str(len(os.sched_getaffinity(0))), "--rounds", "1" if work.rehearse else "3",
               "--steps", "1" if work.rehearse else "5", "--json", out, "--folder", work.path(f"peers-{model}-{mode}")]
    if work.rehearse:
        command += ["--peer-device", "cpu"]
    work.command([*command, "--", *recipe])
    with open(out, encoding="utf-8") as file:
        return json.load(file)


def row(side, measured, batch, step_flops, peak):
    ms = statistics.median(measured["ms"])
    return {"side": side, "ms": ms, "images_per_second": batch / ms * 1e3, "share_of_peak": step_flops / ms * 1e3 / peak,
            "bytes": measured["bytes"], "device_bytes": measured.get("device_bytes"), "beside_ours": measured.get("ratio")}


def measure(work, result, model, recipe, mode, peak, bad):
    """Each peer beside ours; what failed goes into `bad`."""
    needed, rows = flops(work, recipe)["free" if mode == "denoise" else mode], {}
    for peer in ["eager"] if work.rehearse else work.options.peers.split(","):
        try:
            found = run(work, model, recipe, mode, peer)
        except Failure as failure:
            bad.append(f"{model}, {mode}, {peer}: {failure}")
            continue
        batch = found["config"]["batch"]
        for side, measured in found["results"][mode].items():
            if "error" in measured:
                bad.append(f"{model}, {mode}, {side}: {measured['error'][-300:]}")
            else:
                rows[side] = row(side, measured, batch, needed, peak["flops_per_second"])
        result["models"].setdefault(model, {})[mode] = {"batch": batch, "rows": list(rows.values()), "about": found["about"],
                                                        "recipe": recipe}


def peers(work, result, before):
    """Models and modes of earlier calls stay, unless they are measured again."""
    result["models"] = before.get("models", {})
    peak = json.loads(work.command([sys.executable, os.path.join(HERE, "peak.py"), "cpu" if work.rehearse else "cuda",
                                    "64" if work.rehearse else "8192"]).strip().splitlines()[-1])
    result["peak"], bad = peak, []
    for mode in work.options.modes.split(","):  # of all models the first mode first
        for model, recipe in models(work).items():
            measure(work, result, model, recipe, mode, peak, bad)
    if bad:
        result["failures"] = bad
        raise Failure(bad[0] + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))
