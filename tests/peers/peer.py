"""A peer as a worker: compares losses and gradients with ours, refuses to go on where they differ, then answers commands, one
JSON text a line: {"time": steps}, {"memory": steps}, {"profile": steps}.

    python3 tests/peers/peer.py FOLDER --mode haste --peer written|public [--compile] [--device cuda] [--threads N]
"""

import argparse
import json
import re
import resource
import sys
import time

import torch

import task as work

GROUPS = (  # of the profiler's operators, the first that matches
    ("attention", r"scaled_dot_product|flash_attention|efficient_attention"),
    ("matmul", r"::(addmm|mm|bmm|baddbmm|linear|matmul|_addmm_activation)|mkldnn|onednn|gemm"),
    ("convolution", r"convolution"),
    ("layernorm", r"layer_norm"),
    ("gelu, silu", r"gelu|silu"),
    ("softmax", r"softmax"),
    ("adamw, clip, EMA", r"_fused_adamw|_foreach|lerp|linalg_vector_norm|Optimizer"),
    ("copies", r"::(copy_|clone|contiguous|cat|_to_copy|to|fill_|zero_)"),
    ("sums", r"::(sum|mean)"),
    ("compiled kernels", r"Compiled|graph_|cpp_fused|triton|Torch-Compiled"),
    ("elementwise", r"::(mul|add|sub|div|neg|pow|log|exp|where|rsub|add_|mul_|rsqrt|normalize|bernoulli|rand)"),
)


def reset_peak(device):
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5\n")                       # resets VmHWM
    except OSError:
        pass


def peak(device):
    """Bytes: on cuda allocated there, on the CPU resident in memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) * 1024
    except (OSError, AttributeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(peer, count, device):
    """Of each of `count` steps: by the clock, and of processor time, which on a busy machine says more (with one thread). On
    cuda of all together, waited for at the end: the next step is queued while one runs, as in training."""
    elapsed, processor = [], []
    if device == "cuda":
        synchronize(device)
        start, work_start = time.perf_counter(), time.process_time()
        for _ in range(count):
            peer.step()
        synchronize(device)
        return {"ms": [(time.perf_counter() - start) * 1e3 / count], "processor_ms": [(time.process_time() - work_start) * 1e3 / count]}
    for _ in range(count):
        synchronize(device)
        start, work_start = time.perf_counter(), time.process_time()
        peer.step()
        synchronize(device)
        elapsed.append((time.perf_counter() - start) * 1e3)
        processor.append((time.process_time() - work_start) * 1e3)
    return {"ms": elapsed, "processor_ms": processor}


def profile(peer, count, device):
    """Milliseconds a step by group of operators, and the longest operators."""
    from torch.profiler import ProfilerActivity
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with torch.profiler.profile(activities=activities) as record:
        milliseconds(peer, count, device)
    groups, rows = {}, []
    for e in record.key_averages():
        ms = (e.self_device_time_total if device == "cuda" else e.self_cpu_time_total) / 1e3 / count
        group = next((name for name, pattern in GROUPS if re.search(pattern, e.key)), "others")
        groups[group] = groups.get(group, 0) + ms
        rows.append((ms, e.count / count, e.key))
    rows.sort(reverse=True)
    return {"groups": groups, "operators": rows[:30]}


def make(options, task):
    if options.peer == "public":
        from public import Public
        return Public(task)
    from written import Written
    return Written(task, compiled=options.compile, compile_mode=options.compile_mode)


def check(peer, task):
    e = task.expected
    values = peer.gradients(e["latents"], e["noise"], e["time"], e["labels"], e["images"])
    # a peer may train more than ours does in this mode (a projector that no loss reads): that has no gradient
    gradients = {n: p.grad for n, p in peer.parameters.items() if p.grad is not None}
    result = task.compare({n: v.detach() for n, v in values.items()}, gradients)
    peer.optimizer.zero_grad(set_to_none=True)
    task.forget()
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--mode", default="haste", choices=["denoise", "repa", "haste", "free"])
    parser.add_argument("--peer", default="written", choices=["written", "public"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--compile-mode", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--warmup", type=int, default=3)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    task = work.Task(options.folder, options.mode, options.device)
    peer = make(options, task)
    checked = check(peer, task)
    milliseconds(peer, options.warmup, options.device)
    answer = {"checked": checked, "torch": torch.__version__, "threads": torch.get_num_threads()}
    if options.device == "cuda":
        answer.update(device=torch.cuda.get_device_name(), cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    while True:
        print(json.dumps(answer), flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        command = json.loads(line)
        if "time" in command:
            answer = milliseconds(peer, command["time"], options.device)
        elif "memory" in command:
            reset_peak(options.device)
            milliseconds(peer, command["memory"], options.device)
            answer = {"bytes": peak(options.device)}
            if options.device == "cuda":
                free, total = torch.cuda.mem_get_info()
                answer["device_bytes"] = total - free
        else:
            answer = profile(peer, command["profile"], options.device)


main()
