"""The results as JSON, and as Markdown for docs/benchmarks.md."""

import json
import os

ORDER = ("build", "ops", "graph", "memory", "train", "resume", "peers")


def passed_or_not(stage):
    return "passed" if stage["passed"] else "**failed**"


def detail(name, stage):
    """A stage in a line."""
    if "error" in stage:
        return stage["error"].replace("\n", " ").replace("|", "/")[:300]
    if name == "build":
        about = stage["about"]
        return f"{about['device']}; own matmul {about['matmul_flops_per_second'] / 1e12:.4g} TFLOP/s"
    if name == "ops":
        return f"{stage['checks']} checks of {len([op for op in stage['by_op'] if ',' not in op])} ops, float32 and bfloat16"
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


def markdown(results):
    lines = ["A rehearsal without a GPU: figures mean nothing.", ""] if results["rehearsal"] else []
    if "gpu" in results:
        lines += [f"{results['gpu']}; commit {results['stages'].get('build', {}).get('commit', 'unknown')}", ""]
    lines += stage_table(results)
    peers = results["stages"].get("peers", {})
    if "peak" in peers and peers["models"]:
        lines += peer_table(peers)
    return "\n".join(lines) + "\n"


def summary(results):
    return "\n".join(stage_table(results))


def write(results, folder):
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(markdown(results))
