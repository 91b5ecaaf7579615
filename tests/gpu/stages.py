"""The stages of tests/gpu/run: each takes the work, the result to fill in, and the result of an earlier call."""

import concurrent.futures
import glob
import json
import os
import re
import shutil

import built
import curves
import first
from work import HERE, ROOT, Failure

RECIPE = os.path.join(HERE, "cifar10.lua")


# ---- build ------------------------------------------------------------------------------------------------------

def capability(work):
    """The GPU's compute capability, "90"; None in a rehearsal."""
    if work.rehearse:
        return None
    status, text = work.command(["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version",
                                 "--format=csv,noheader"], may_fail=True)
    if status:
        raise Failure(f"no GPU answers: {text.strip()}")
    work.results["gpu"] = text.strip()
    return built.capability_of(text)


def about(work, plugin, before):
    """What the device is, with the rate of its matmul: measured once for a plugin."""
    stamp = os.path.getmtime(plugin)
    if before.get("plugin") == stamp:
        return before["about"], stamp
    return work.perigee_json(os.path.join(HERE, "about.lua"), "cuda"), stamp


def carried(work, result, architecture):
    """Takes what was built elsewhere, if that runs here; else None, and the result says why."""
    if not work.options.built:
        return None
    try:
        manifest = built.unpack(work, work.options.built, architecture)
        work.perigee("run", os.path.join(HERE, "device.lua"), "cuda")
        result["carried"] = f"{work.options.built} for compute capability {manifest['architecture']}"
        return manifest
    except Failure as failure:
        result["carried"] = f"no: {failure}"
        work.say(f"built here instead: {failure}")
        stamp = os.path.join(work.build, ".built")
        if os.path.exists(stamp):
            os.remove(stamp)  # so that ./perigee builds
        for name in ("LD_LIBRARY_PATH", "PERIGEE_CUDA_LIBRARY"):
            work.environment.pop(name, None)
            if name in os.environ:
                work.environment[name] = os.environ[name]
        return None


def compiled(work, architecture):
    """Builds the program and the plugin; its name and whether it has cuDNN."""
    flags = ["-DPERIGEE_TESTS=ON"] if work.rehearse else built.flags(architecture)
    target = "perigee_cuda_on_cpu" if work.rehearse else "perigee_cuda"
    given = os.environ.get("PERIGEE_CMAKE_FLAGS")
    work.environment["PERIGEE_CMAKE_FLAGS"] = " ".join(flags + ([given] if given else []))
    work.perigee("--help")
    work.command(["cmake", "--build", work.build, "--target", target, "-j", str(os.cpu_count())])
    return {"plugin": f"lib{target}.so", "cudnn": work.rehearse or built.has_cudnn(work.build)}


def build(work, result, before):
    architecture = capability(work)
    made = carried(work, result, architecture) or compiled(work, architecture)
    plugin = os.path.join(work.build, "runtime", made["plugin"])
    if work.rehearse:
        work.environment["PERIGEE_CUDA_LIBRARY"] = plugin
    work.has_cudnn = made["cudnn"]
    result["about"], result["plugin"] = about(work, plugin, before)
    status, commit = work.command(["git", "describe", "--always", "--dirty"], may_fail=True)
    result["commit"] = commit.strip() if status == 0 else "unknown"


# ---- ops --------------------------------------------------------------------------------------------------------

def ops(work, result, _):
    """Op by op, as many at a time as there are cores; attention and convolution as it is chosen, and each of the two that there
    may be."""
    jobs = {os.path.basename(path)[:-4]: (path, {}) for path in sorted(glob.glob(os.path.join(ROOT, "tests", "ops", "*.lua")))}
    for op in ("attention", "convolution"):
        for wish in ("own", "cudnn"):
            jobs[f"{op}, {wish}"] = (jobs[op][0], {f"PERIGEE_{op.upper()}": wish})

    if "races" in work.options.asked:
        first.start_races(work)

    def one(job):
        path, environment = job
        try:
            return work.perigee_json(os.path.join(HERE, "ops.lua"), "cuda", "float32,bfloat16", path,
                                     environment={"OMP_NUM_THREADS": "1", **environment})
        except Failure as failure:
            return {"passed": 0, "failed": [{"name": "all", "message": str(failure)}], "missing": [], "theirs": 0, "ours_instead": 0}

    with concurrent.futures.ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 12)) as pool:
        by_op = dict(zip(jobs, pool.map(one, jobs.values())))
    result["by_op"] = by_op
    result["checks"] = sum(r["passed"] for r in by_op.values())
    result["float64"] = sum(r.get("float64", 0) for r in by_op.values())
    result["failures"] = [f"{f['name']}: {f['message'][:300]}" for r in by_op.values() for f in r["failed"]]
    result["by_cudnn"] = {op: [by_op[op]["theirs"], by_op[op]["ours_instead"]] for op in by_op if op.endswith(", cudnn")}
    if work.has_cudnn:
        result["failures"] += [f"{op}: cuDNN served no check of gradients" for op, (theirs, _) in result["by_cudnn"].items()
                               if not theirs]
    result["missing"] = sorted({kernel for r in by_op.values() for kernel in r["missing"]})
    if result["failures"]:
        raise Failure(f"{len(result['failures'])} checks failed, {result['checks']} passed; the first: {result['failures'][0]}")


# ---- runs of the recipe -----------------------------------------------------------------------------------------

def settings(work, **more):
    """--set for the recipe: its sizes, and the teacher's weights, made where none were given."""
    sizes = {"size": "small", "total": work.options.steps, "align": work.options.steps * 2 // 3, "checkpoint": 10}
    if work.rehearse:
        sizes = {"size": "tiny", "total": 6, "align": 4, "angle": 2, "checkpoint": 2, "batch": 4, "micro": 4}
    if work.options.data:
        sizes["data"] = os.path.abspath(work.options.data)
    teacher = work.options.teacher and os.path.abspath(work.options.teacher)
    if not teacher or work.rehearse:
        teacher = work.path(f"teacher-{sizes['size']}.safetensors")
        if not os.path.exists(teacher):
            work.perigee("run", os.path.join(HERE, "teacher.lua"), RECIPE, teacher, "--size", sizes["size"])
    return {**sizes, "teacher": teacher, **more}


def recipe_options(values):
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def train(work, name, values, *flags, device="cuda", environment=None):
    """A new run, or one that goes on; returns its folder."""
    folder = work.path("runs", name)
    if "--resume" not in flags:
        shutil.rmtree(folder, ignore_errors=True)
    chosen = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    work.perigee("train", RECIPE, "--runs", work.path("runs"), "--name", name, "--device", device, "--no-console", "--quiet", *chosen,
                 *flags, environment=environment)
    return folder


def events(folder):
    return curves.read(os.path.join(folder, "events.jsonl"))


def other_isa(work):
    """An instruction set below the machine's own, with another order of sums."""
    own = work.results["stages"]["build"]["about"]["isa"]
    return {"x86-64-v4 + bf16": "v3", "x86-64-v4": "v3", "x86-64-v3": "baseline"}.get(own)


def compare_devices(work, result, _):
    result["curves"] = {}
    for precision in ("float32", "bf16"):
        values = settings(work, precision=precision)
        cpu = events(train(work, f"cpu-{precision}", values, device="cpu"))
        isa, other = other_isa(work), {}
        if isa:
            other = events(train(work, f"other-{precision}", values, device="cpu", environment={"PERIGEE_ISA": isa}))
        cuda = events(train(work, f"cuda-{precision}", values))
        found = curves.compare(cuda, cpu, other, precision)
        found["rounding"] = isa and f"the CPU as {isa}"
        found["cpu"], found["cuda"], found["cpu_other"] = cpu, cuda, other
        result["curves"][precision] = found
    result["data"] = work.options.data and "CIFAR-10" or "shapes"
    result["attention"] = work.choices("attention")
    bad = [f"{p}: {c.get('error') or c['too_far'][0]}" for p, c in result["curves"].items() if not c["passed"]]
    if bad:
        raise Failure("; ".join(bad))


def checkpoint(folder, step):
    with open(os.path.join(folder, "checkpoints", f"step-{step:07d}.safetensors"), "rb") as file:
        return file.read()


def resume(work, result, _):
    """Twice the same bits; and the same after a stop in each stage."""
    result["checked"] = {}
    for precision in ("float32", "bf16"):
        values = settings(work, precision=precision)
        last, align = values["total"], values["align"]
        whole = checkpoint(train(work, f"whole-{precision}", values), last)
        again = checkpoint(train(work, f"again-{precision}", values), last)
        folder = train(work, f"parts-{precision}", values, "--steps", str(align // 2 + 1))
        train(work, f"parts-{precision}", values, "--steps", str(align + 1), "--resume")
        train(work, f"parts-{precision}", values, "--resume")
        result["checked"][precision] = {"twice": again == whole, "resumed": checkpoint(folder, last) == whole, "steps": last}
    bad = [f"{precision}: other bits when {'run twice' if key == 'twice' else 'resumed'}"
           for precision, found in result["checked"].items() for key in ("twice", "resumed") if not found[key]]
    if bad:
        raise Failure("; ".join(bad))


# ---- graph, memory ----------------------------------------------------------------------------------------------

def graph(work, result, _):
    options = recipe_options(settings(work))
    result["by_stage"] = work.perigee_json(os.path.join(HERE, "graph.lua"), "cuda", 5, RECIPE, *options)
    for stage in result["by_stage"]:
        first, rest = stage["first"], stage["rest"]
        if first["captures"] != 1:
            raise Failure(f"stage {stage['stage']}: {first['captures']} captures in two steps, expected 1")
        if rest["calls"] or rest["captures"] or rest["launches"] != stage["steps"]:
            raise Failure(f"stage {stage['stage']}: {stage['steps']} steps queued {rest['calls']} calls one by one, {rest['captures']} "
                          f"captures and {rest['launches']} launches of graphs; expected none, none, {stage['steps']}")


def memory(work, result, _):
    """A batch that no GPU of today holds is refused before the first step, with what was planned."""
    batch = 4096 if work.rehearse else 131072
    values = settings(work, batch=batch, micro=batch)
    folder = work.path("runs", "too-large")
    shutil.rmtree(folder, ignore_errors=True)
    chosen = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    status, text = work.perigee("train", RECIPE, "--runs", work.path("runs"), "--name", "too-large", "--device", "cuda", "--no-console",
                                "--quiet", *chosen, may_fail=True, environment={"CUDA_ON_CPU_MEMORY": "64"} if work.rehearse else None)
    result["status"], result["message"] = status, text.strip()[-1500:]
    if status <= 0:
        raise Failure(f"batch {batch} ended with status {status}: {result['message'][-300:]}")
    if not re.search(r"memory|MiB|GiB", text) or "batch" not in text:
        raise Failure(f"the message says nothing of memory and batch: {result['message'][-300:]}")
    path = os.path.join(folder, "events.jsonl")
    if os.path.exists(path) and curves.read(path):
        raise Failure("steps were taken before it was refused")

