"""Attention forward and backward, against PyTorch's scaled_dot_product_attention, in turns.

    cargo build --release -p ferrata-cpu --example attention
    python bench/attention_torch.py target/release/examples/attention [--dtype bf16] [--rounds 5]

Prints, for every shape, the median time of both, their ratio, and the memory that each takes
beyond the queries, keys, values and the gradient of the output: results and workspace.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time

# The names of the example's cases; batch, heads, positions, features. All are causal.
SHAPES = {
    "GPT 10.8 M": (8, 6, 256, 64),
    "GPT-2 124 M": (2, 12, 256, 64),
    "GPT-2, 2048": (1, 12, 2048, 64),
}
NUMBER = r"([0-9.]+)"
LINE = re.compile(rf"(.*), (forward|backward) +best +{NUMBER} us +median +{NUMBER} us")
MEMORY = re.compile(rf"(.*), memory +{NUMBER} MB")


def ours(binary, dtype, name):
    """Median milliseconds of forward and backward, and megabytes."""
    out = subprocess.run([binary, dtype, name], check=True, capture_output=True, text=True).stdout
    times = [float(m[4]) / 1e3 for m in map(LINE.match, out.splitlines()) if m]
    memory = [float(m[2]) for m in map(MEMORY.match, out.splitlines()) if m]
    return times, memory[0]


def high_water():
    """The most memory that this process has had since the last call, and what it has now, in MB."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    return int(lines["VmHWM"].split()[0]) / 1024, int(lines["VmRSS"].split()[0]) / 1024


def theirs(dtype, name, runs=11):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(2)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    batch, heads, positions, features = SHAPES[name]
    shape = (batch, positions, heads, features)
    q, k, v = (torch.randn(shape).to(kind).transpose(1, 2).requires_grad_() for _ in range(3))
    dout = torch.randn(shape).to(kind).transpose(1, 2)
    times, memory = [[], []], []
    for _ in range(runs):
        _, before = high_water()
        start = time.perf_counter()
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        between = time.perf_counter()
        out.backward(dout)
        end = time.perf_counter()
        memory.append(high_water()[0] - before)
        times[0].append((between - start) * 1e3)
        times[1].append((end - between) * 1e3)
        q.grad = k.grad = v.grad = out = None
    # The first run also loads libraries.
    return [statistics.median(t) for t in times], max(memory[1:])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("--dtype", default="f32", choices=["f32", "bf16", "f16"])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--torch", choices=SHAPES, help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.torch:
        times, memory = theirs(args.dtype, args.torch)
        print(*times, memory)
        return
    print(f"{args.dtype:12} {'ours ms':>16} {'torch ms':>16} {'ratio':>6} {'ours MB':>8} {'torch MB':>9}")
    for name in SHAPES:
        mine, peer = [], []
        for _ in range(args.rounds):
            times, memory = ours(args.binary, args.dtype, name)
            mine.append((*times, memory))
            # A process of its own, as ours is.
            command = [sys.executable, __file__, args.binary, "--dtype", args.dtype, "--torch", name]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peer.append(tuple(map(float, out.split())))
        (f, b, m), (tf, tb, tm) = ([statistics.median(x) for x in zip(*runs)] for runs in (mine, peer))
        print(
            f"{name:12} {f:7.2f} +{b:7.2f} {tf:7.2f} +{tb:7.2f} {(f + b) / (tf + tb):6.2f} {m:8.1f} {tm:9.1f}"
        )


if __name__ == "__main__":
    main()
