"""Loss curves of two devices.

Two correct implementations in one precision differ by rounding, and training lets that grow from step to step: a fixed
tolerance is either too wide for the first steps or too narrow for the last. So the recipe runs a third time, on the CPU with
another instruction set, which changes nothing but the order of sums. How far those two have come apart by a step is what
rounding does to this recipe; a device may be TIMES as far, and never needs to be nearer than FLOOR, relative to the loss: in
float32 a few roundings of a sum, in bfloat16 one rounding (2^-8) of what the losses are made of, which another order of
kernels places elsewhere. The first step, which no training precedes, has to hold the floor alone.
"""

import json

TIMES = 10
FLOOR = {"float32": 2e-5, "bf16": 2 ** -8}


def read(path):
    """{step: {loss: value}} of a run's events."""
    with open(path, encoding="utf-8") as file:
        events = [json.loads(line) for line in file]
    return {e["step"]: e["losses"] for e in events if e["event"] == "step"}


def distance(a, b):
    """Relative to b, whose losses may pass through zero: there to a tenth."""
    return abs(a - b) / max(abs(b), 0.1)


def compare(device, cpu, other, precision):
    """What came of it: the farthest step, and every step that is too far."""
    allowed, worst, bad = FLOOR[precision], {"share": 0}, []
    if sorted(device) != sorted(cpu):
        return {"passed": False, "error": f"steps {min(device)} to {max(device)}, expected {min(cpu)} to {max(cpu)}"}
    for number, step in enumerate(sorted(cpu)):
        if sorted(device[step]) != sorted(cpu[step]):
            return {"passed": False, "error": f"step {step}: losses {sorted(device[step])}, expected {sorted(cpu[step])}"}
        for name, value in cpu[step].items():
            if number > 0 and step in other:
                allowed = max(allowed, TIMES * distance(other[step][name], value))
        for name, value in cpu[step].items():
            far = distance(device[step][name], value)
            if far / allowed > worst["share"]:
                worst = {"share": far / allowed, "step": step, "loss": name, "distance": far, "allowed": allowed}
            if not far <= allowed:
                bad.append(f"step {step}, {name}: {device[step][name]:.7g}, on the CPU {value:.7g}, {far:.1e} apart, "
                           f"{allowed:.1e} allowed")
    return {"passed": not bad, "worst": worst, "too_far": bad[:8], "steps": len(cpu)}
