"""The step of `cargo xtask bench step` with the official Python SDK, for comparison; nothing else here needs Python.

    python sdk.py URL json|proto FILE [STEPS] [W2,W3,..]

URL is that of `cargo xtask null-server --port P --dialect json|proto`: json for an SDK before 0.19 (and SDK 0.3.0 was
measured), proto for one from 0.25 on (0.38.0). Needs the packages tinker and torch. Adds rows to FILE, which
`cargo xtask bench step --beside FILE` puts beside ours. Each workload runs in a process of its own, with one thread for
PyTorch; the constants of the loss are tensors before the first step.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version

WORKLOADS = {"W2": (64, 1024), "W3": (256, 4096), "W4": (64, 16384)}


def traffic(url):
    with urllib.request.urlopen(f"{url}/traffic") as answer:
        return json.load(answer)


def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def measure(url, dialect, workload, steps):
    import numpy as np
    import tinker
    import torch
    from tinker import types

    torch.set_num_threads(1)
    sequences, tokens = WORKLOADS[workload]
    rng = np.random.default_rng(0)
    data, constants = [], []
    for _ in range(sequences):
        ids = (rng.random(tokens + 1) * rng.random(tokens + 1) * 150000).astype(np.int64)
        old = np.log1p(rng.random(tokens)).astype(np.float32) - 2
        advantages = np.full(tokens, rng.random() - 0.5, dtype=np.float32)
        advantages[: tokens // 4] = 0
        target = types.TensorData(data=ids[1:].tolist(), dtype="int64", shape=[tokens])
        data.append(types.Datum(model_input=types.ModelInput.from_ints(ids[:-1].tolist()), loss_fn_inputs={"target_tokens": target}))
        constants.append((torch.from_numpy(old), torch.from_numpy(advantages)))

    service = tinker.ServiceClient(base_url=url, api_key="tml-none")
    training = service.create_lora_training_client(base_model="null", rank=8)
    training = training.result() if hasattr(training, "result") else training

    def ppo(_, logprobs):
        loss = 0.0
        for lp, (old, advantages) in zip(logprobs, constants):
            ratio = torch.exp(lp - old)
            loss = loss - torch.min(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages).sum()
        return loss, {}

    def step():
        start = time.process_time(), time.perf_counter()
        training.forward_backward_custom(data, ppo).result()
        return (time.process_time() - start[0]) * 1e3, (time.perf_counter() - start[1]) * 1e3

    before_steps = memory("VmRSS:")
    step()
    before = traffic(url)
    measured = [step() for _ in range(steps)]
    after = traffic(url)

    return {
        "client": f"SDK {version('tinker')}",
        "dialect": dialect,
        "workload": workload,
        "steps": steps,
        "cpu_ms": statistics.median(cpu for cpu, _ in measured),
        "wall_ms": statistics.median(wall for _, wall in measured),
        "phases": [],
        "bytes_to_server": (after["bytes_to_server"] - before["bytes_to_server"]) // steps,
        "bytes_to_client": (after["bytes_to_client"] - before["bytes_to_client"]) // steps,
        "resident_before": before_steps,
        "resident_peak": memory("VmHWM:"),
    }


def main():
    url, dialect, file = sys.argv[1:4]
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else 7
    chosen = sys.argv[5].split(",") if len(sys.argv) > 5 else list(WORKLOADS)
    if os.environ.get("MEASURED"):
        print(json.dumps(measure(url, dialect, chosen[0], steps)))
        return
    rows = []
    if os.path.exists(file):
        with open(file) as text:
            rows = json.load(text)
    for workload in chosen:
        command = [sys.executable, __file__, url, dialect, file, str(steps), workload]
        output = subprocess.run(command, env={**os.environ, "MEASURED": "1"}, check=True, stdout=subprocess.PIPE)
        rows.append(json.loads(output.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    with open(file, "w") as text:
        json.dump(rows, text, indent=1)


if __name__ == "__main__":
    main()
