"""Which goals of a run on a GPU hold, and predictions beside what came of them, from the results of its stages alone."""

IMAGE_FLOPS = 717e9       # a training step of SiT-XL/2, an image: three forwards, no teacher
PUBLISHED = {"haste": 30667, "repa": 27818}  # MiB at 32 images a device, of the public code (arXiv 2505.16792, review thread)

# Milliseconds of HASTE's step at SiT-XL/2, batch 256, bf16, on an H200, from the kernels' designs and the machine code; a
# group is the ops of a part of the program whose names begin so. docs/benchmarks.md has the table with its reasons.
PREDICTED = (
    ("products and gradients of biases", "student", ("matmul",), 294.0),
    ("attention with what aligns it", "student", ("attention",), 31.5),
    ("layernorm", "student", ("layernorm",), 13.6),
    ("gated residual", "student", ("gated_residual",), 13.9),
    ("teacher", "teacher", ("",), 28.5),
    ("projector", "projector", ("",), 5.1),
    ("losses of the alignment", "alignment", ("",), 1.0),
    ("gradient sums, norm, AdamW, EMA", "update", ("",), 8.6),
)
PREDICTED_STEP = {"haste": 398.5, "free": 362.0}


def bench_stages(results):
    found = results["stages"].get("bench", {}).get("bench")
    return {stage["stage"]: stage for stage in found["stages"]} if found else {}


def peak_of(results):
    """FLOP/s of the faster of the two matmuls that were measured in the run; None where none was."""
    stage = results["stages"].get("bench", {})
    rates = [stage.get("bench", {}).get("matmul_flops_per_second"), stage.get("torch_peak", {}).get("flops_per_second")]
    return max((rate for rate in rates if rate), default=None)


def beside(results, mode, side):
    """How many times as fast ours is as a peer in a mode, at SiT-XL/2."""
    for model, by_mode in results["stages"].get("peers", {}).get("models", {}).items():
        if model == "xl_2" or results["rehearsal"]:
            for row in by_mode.get(mode, {}).get("rows", []):
                if row["side"] == side:
                    return row["beside_ours"]
    return None


def share_of_peak(results):
    free, peak = bench_stages(results).get("free"), peak_of(results)
    return free["images_per_second"] * IMAGE_FLOPS / peak if free and peak else None


def alignment_share(results):
    haste = bench_stages(results).get("haste")
    return haste and haste.get("alignment_share")


def graph_share(results):
    """How much longer a step's graph takes than its kernels one after the other; the worst stage."""
    shares = [stage["ms"] / sum(1e3 * op["seconds"] for op in stage["ops"]) - 1 for stage in bench_stages(results).values()]
    return max(shares, default=None)


def memory_shares(results):
    peaks = results["stages"].get("memory32", {}).get("peaks", {})
    if len(peaks) < 2:
        return None, None
    mib = {stage: peak / 2 ** 20 for stage, peak in peaks.items()}
    return mib["haste"] / mib["repa"] - 1, max(mib[stage] / PUBLISHED[stage] for stage in mib)


def goal(name, value, bound, at_least):
    """`value` None: not measured, or in a rehearsal."""
    holds = None if value is None else bool(value >= bound if at_least else value <= bound)
    return {"goal": name, "measured": value, "bound": bound, "at_least": at_least, "holds": holds}


def passed(results, name):
    stage = results["stages"].get(name)
    return {"goal": f"stage {name} passes", "measured": None, "bound": None, "at_least": True, "holds": stage and stage["passed"]}


def goals(results):
    more, below = memory_shares(results)
    found = [
        *(passed(results, name) for name in ("ops", "races", "graph", "resume", "train")),
        goal("SiT-XL/2 without alignment: share of the matmul peak of the same run", share_of_peak(results), 0.60, True),
        goal("HASTE's stage: times as fast as the public code's step", beside(results, "haste", "public"), 1.5, True),
        goal("HASTE's stage: times as fast as a well-written compiled step", beside(results, "haste", "compile"), 1.2, True),
        goal("after termination: times as fast as the public code's step", beside(results, "free", "public"), 2.0, True),
        goal("the alignment's own ops: share of the step", alignment_share(results), 0.03, False),
        goal("peak memory at 32 images: HASTE over REPA", more, 0.01, False),
        goal("peak memory at 32 images: over what was published", below, 1.0, False),
        goal("a step's graph over the sum of its kernels", graph_share(results), 0.02, False),
    ]
    if results["rehearsal"]:  # its figures mean nothing
        found = [{**g, "holds": g["holds"] if g["bound"] is None else None} for g in found]
    return found


def predictions(results):
    """Rows: what, predicted ms, measured ms or None."""
    stages = bench_stages(results)
    rows = [{"what": f"step, {name}", "predicted": ms, "measured": stages[name]["ms"] if name in stages else None}
            for name, ms in PREDICTED_STEP.items()]
    for what, part, begins, ms in PREDICTED:
        ops = stages.get("haste", {}).get("ops", [])
        mine = [1e3 * op["seconds"] for op in ops if op["part"] == part and op["op"].startswith(begins)]
        rows.append({"what": what, "predicted": ms, "measured": sum(mine) if ops else None})
    return rows
