"""The rate that PyTorch's matmul reaches with square bfloat16 matrices of random numbers, the best of five rounds: the
denominator of every share of the peak. Prints one JSON text.

    python3 tests/gpu/peak.py DEVICE SIZE
"""

import json
import sys
import time

import torch

ROUNDS, CALLS = 5, 10


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def main():
    device, n = sys.argv[1], int(sys.argv[2])
    a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS + 1):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(CALLS):
            a @ b
        synchronize(device)
        best = min(best, (time.perf_counter() - start) / CALLS)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(json.dumps({"flops_per_second": 2 * n ** 3 / best, "size": n, "torch": torch.__version__, "device": name}))


main()
