"""The results as JSON, and as Markdown for docs/benchmarks.md."""

import json
import os
import tarfile

import goals

ORDER = ("facts", "build", "smoke", "ops", "races", "graph", "bench", "resume", "train", "memory", "peers", "memory32")


def passed_or_not(stage):
    return "passed" if stage["passed"] else "**failed**"


def detail(name, stage):
    """A stage in a line."""
    if "error" in stage:
        return stage["error"].replace("\n", " ").replace("|", "/")[:300]
    if name == "build":
        about = stage["about"]
        carried = f"; carried {stage['carried']}" if "carried" in stage else ""
        return f"{about['device']}; own matmul {about['matmul_flops_per_second'] / 1e12:.4g} TFLOP/s{carried}".replace("|", "/")
    if name == "ops":
        cudnn = "; ".join(f"{op}: {theirs} of {theirs + ours} checks of gradients" for op, (theirs, ours) in stage["by_cudnn"].items())
        return f"{stage['checks']} checks of {len([op for op in stage['by_op'] if ',' not in op])} ops, float32 and bfloat16; {cudnn}"
    if name == "graph":
        return "; ".join(f"{s['stage']}: {s['rest']['launches'] // s['steps']} launches a step, {s['rest']['calls']} calls beside them"
                         for s in stage["by_stage"])
    if name == "memory":
        return stage["message"].splitlines()[-1].replace("|", "/")[:300]
    if name == "train":
        return "; ".join(f"{p}: {c['steps']} steps, at most {c['worst']['share']:.2f} of what is allowed (step "
                         f"{c['worst'].get('step', '-')}: {c['worst'].get('distance', 0):.1e})" for p, c in stage["curves"].items())
    if name == "resume":
        return "; ".join(f"{p}: the same bits twice and resumed, {c['steps']} steps" for p, c in stage["checked"].items())
    if name == "facts":
        return "; ".join(f"{key}: {stage[key]}" for key in ("gpu", "nvcc", "compiler", "torch")).replace("|", "/")
    if name == "smoke":
        return f"{stage['checks']} checks"
    if name == "races":
        return "; ".join(f"{op}: {found['hazards']} hazards" for op, found in stage["by_op"].items())
    if name == "bench":
        return "; ".join(f"{s['stage']}: {s['ms']:.4g} ms, {s['images_per_second']:.4g} images/s" for s in stage["bench"]["stages"])
    if name == "memory32":
        return "; ".join(f"{s}: {peak / 2 ** 20:.0f} MiB" for s, peak in stage["peaks"].items())
    return f"{len(stage['models'])} models"


def stage_table(results):
    lines = ["| stage | | | date | s |", "|---|---|---|---|---|"]
    for name in ORDER:
        if name in results["stages"]:
            stage = results["stages"][name]
            lines.append(f"| {name} | {passed_or_not(stage)} | {detail(name, stage)} | {stage['date']} | {stage['seconds']} |")
    return lines


def peer_table(stage):
    peak = stage["peak"]
    lines = ["", f"Beside PyTorch {peak['torch']} on {peak['device']}; the peak is what its bfloat16 matmul of {peak['size']} reaches here: "
             f"{peak['flops_per_second'] / 1e12:.4g} TFLOP/s.", "",
             "| model, batch | mode | side | ms a step | images/s | share of the peak | peak memory, GiB | ours is faster |",
             "|---|---|---|---|---|---|---|---|"]
    for model, by_mode in stage["models"].items():
        for mode, found in by_mode.items():
            for r in found["rows"]:
                times = f"{r['beside_ours']:.2f}×" if r["beside_ours"] and r["side"] != "ours" else ""
                lines.append(f"| {model}, {found['batch']} | {mode} | {r['side']} | {r['ms']:.4g} | {r['images_per_second']:.4g} | "
                             f"{100 * r['share_of_peak']:.3g} % | {r['bytes'] / 2 ** 30:.3g} | {times} |")
    return lines


def number(value):
    return "not measured" if value is None else f"{value:.4g}"


def goal_table(results):
    words = {True: "yes", False: "**no**", None: "unknown"}
    lines = ["", "| goal | measured | wanted | holds |", "|---|---|---|---|"]
    for g in goals.goals(results):
        wanted = "" if g["bound"] is None else f"{'at least' if g['at_least'] else 'at most'} {g['bound']:g}"
        lines.append(f"| {g['goal']} | {'' if g['bound'] is None else number(g['measured'])} | {wanted} | {words[g['holds']]} |")
    return lines


def prediction_table(results):
    lines = ["", "| ms, SiT-XL/2, batch 256 | predicted | measured | measured / predicted |", "|---|---|---|---|"]
    for row in goals.predictions(results):
        ratio = "" if row["measured"] is None else f"{row['measured'] / row['predicted']:.2f}"
        lines.append(f"| {row['what']} | {row['predicted']:g} | {number(row['measured'])} | {ratio} |")
    return lines


def markdown(results):
    lines = ["A rehearsal without a GPU: figures mean nothing.", ""] if results["rehearsal"] else []
    if "gpu" in results:
        lines += [f"{results['gpu']}; commit {results['stages'].get('build', {}).get('commit', 'unknown')}", ""]
    lines += stage_table(results)
    peers = results["stages"].get("peers", {})
    if "peak" in peers and peers["models"]:
        lines += peer_table(peers)
    lines += goal_table(results) + prediction_table(results)
    return "\n".join(lines) + "\n"


def summary(results):
    return "\n".join(stage_table(results))


def write(work):
    """results.json and results.md, and both with the logs in one file, for machines from which few files come back."""
    results, folder = work.results, work.out
    results["goals"], results["predictions"] = goals.goals(results), goals.predictions(results)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(markdown(results))
    places = [os.path.join(folder, name) for name in ("results.json", "results.md", "log.txt")]
    places += [os.path.join(work.build, "build.log"), work.path("bench.json"), work.path("cache", "choices.json")]
    with tarfile.open(os.path.join(folder, "all.tgz"), "w:gz") as archive:
        for place in places:
            if os.path.exists(place):
                archive.add(place, os.path.basename(place))
