"""The losses of this bench in eager PyTorch on the CPU, for comparison; nothing else here needs Python.

    python pytorch.py THREADS [FILE] [W1,W2,..]      any environment with torch and numpy

Writes rows `{"name": "torch-THREADS/LOSS/FORM/Wn", "median_ns": ..}`, which `cargo xtask bench loss --beside FILE` puts beside ours.
"loop" is the form of the trainers' documentation, one tensor per sequence; "ragged" is the best that PyTorch has for it: one `cat`
of the sequences, the constants packed beforehand. What is timed is making the leaves, the loss, and its backward pass.
With one thread there is also `torch-compile/ppo/ragged/W3`, after compilation.
"""

import json
import statistics
import sys
import time

import numpy as np
import torch

threads = int(sys.argv[1])
file = sys.argv[2] if len(sys.argv) > 2 else None
torch.set_num_threads(threads)
WORKLOADS = {"W1": (8, 128), "W2": (64, 1024), "W3": (256, 4096), "W4": (64, 16384), "W5": (1024, 64)}
chosen = sys.argv[3].split(",") if len(sys.argv) > 3 else list(WORKLOADS)
SECONDS, ROUNDS = 1.0, 40


def ce_loop(lps, d):
    return sum(-torch.dot(lp, w) for lp, w in zip(lps, d["w"]))


def grpo_loop(lps, d):
    loss = 0.0
    for lp, ref, w, a in zip(lps, d["ref"], d["w"], d["adv"]):
        loss = loss - torch.dot(lp, w) * a + 0.1 * torch.dot(lp - ref, w)
    return loss / len(lps)


def ppo_loop(lps, d):
    loss = 0.0
    for lp, old, w, a in zip(lps, d["old"], d["w"], d["adv"]):
        ratio = torch.exp(lp - old)
        loss = loss - (torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a) * w).sum()
    return loss


def dpo_loop(lps, d):
    rewards = [torch.dot(lp, w) - torch.dot(ref, w) for lp, ref, w in zip(lps, d["ref"], d["w"])]
    pairs = zip(rewards[0::2], rewards[1::2])
    return torch.stack([-torch.nn.functional.logsigmoid(0.1 * (c - r)) for c, r in pairs]).mean()


def variance(lps, d):
    return torch.cat(lps).var()


def ce_ragged(lps, d):
    return -(torch.cat(lps) * d["all w"]).sum()


def grpo_ragged(lps, d):
    x = torch.cat(lps)
    return (0.1 * ((x - d["all ref"]) * d["all w"]).sum() - (d["all adv"] * x * d["all w"]).sum()) / len(lps)


def ppo_ragged(lps, d):
    ratio = torch.exp(torch.cat(lps) - d["all old"])
    clipped = torch.clamp(ratio, 0.8, 1.2) * d["all adv"]
    return -(torch.min(ratio * d["all adv"], clipped) * d["all w"]).sum()


def dpo_ragged(lps, d):
    x = (torch.cat(lps) - d["all ref"]) * d["all w"]
    rewards = torch.zeros(len(lps)).index_add(0, d["segment"], x)
    return -torch.nn.functional.logsigmoid(0.1 * (rewards[0::2] - rewards[1::2])).mean()


LOSSES = {
    "ce/loop": ce_loop, "grpo/loop": grpo_loop, "ppo/loop": ppo_loop, "dpo/loop": dpo_loop, "variance/loop": variance,
    "ce/ragged": ce_ragged, "grpo/ragged": grpo_ragged, "ppo/ragged": ppo_ragged, "dpo/ragged": dpo_ragged,
    "variance/ragged": variance,
}


def data(sequences, tokens):
    g = np.random.default_rng(0)
    lps = [-g.exponential(0.7, tokens).astype(np.float32) for _ in range(sequences)]
    near = lambda spread: [torch.from_numpy(x + g.normal(0, spread, tokens).astype(np.float32)) for x in lps]
    d = {"old": near(0.15), "ref": near(0.3), "adv": g.normal(0, 1, sequences).tolist()}
    d["w"] = [torch.from_numpy((np.arange(tokens) >= tokens // 4).astype(np.float32)) for _ in lps]
    d |= {"all " + k: torch.cat(d[k]) for k in ("old", "ref", "w")}
    d["all adv"] = torch.tensor(d["adv"]).repeat_interleave(tokens)
    d["segment"] = torch.arange(sequences).repeat_interleave(tokens)
    return lps, d


def step(loss, lps, d):
    start = time.perf_counter()
    leaves = [torch.from_numpy(x.copy()).requires_grad_(True) for x in lps]
    loss(leaves, d).backward()
    return time.perf_counter() - start


def rounds(losses, lps, d):
    """The losses in turn, so that a busy moment hits all alike; the first round warms up."""
    times = {name: [] for name in losses}
    end, done = time.perf_counter() + SECONDS * len(losses), 0
    while done < 4 or (done < ROUNDS and time.perf_counter() < end):
        for name, loss in losses.items():
            times[name].append(step(loss, lps, d))
        done += 1
    return {name: statistics.median(each[1:]) * 1e9 for name, each in times.items()}


rows = []
for workload in chosen:
    lps, d = data(*WORKLOADS[workload])
    measured = {f"torch-{threads}/{name}": ns for name, ns in rounds(LOSSES, lps, d).items()}
    if workload == "W3" and threads == 1:
        compiled = torch.compile(ppo_ragged)
        step(compiled, lps, d)
        measured |= {f"torch-compile/{name}": ns for name, ns in rounds({"ppo/ragged": compiled}, lps, d).items()}
    for name, ns in measured.items():
        rows.append({"name": f"{name}/{workload}", "median_ns": ns})
        print(f"{name}/{workload}: {ns / 1e6:.3f} ms", flush=True)
if file:
    with open(file, "w") as out:
        json.dump(rows, out, indent=2)
