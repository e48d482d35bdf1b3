"""The official Python SDK against a local trainer: one line of JSON for each check, {"check", "ok", "seen"}.

usage: scenario.py URL BASE_MODEL
"""
import json
import math
import sys

import tinker
import torch
from tinker import types

ADAM = types.AdamParams(learning_rate=1e-2, beta1=0.9, beta2=0.95, eps=1e-8)


def check(name, ok, seen):
    print(json.dumps({"check": name, "ok": bool(ok), "seen": str(seen)}), flush=True)


def ready(client):
    """What makes a client gives a future of it in the newest releases."""
    return client.result() if hasattr(client, "result") else client


def datum(text, weights=None):
    tokens = list(text.encode())
    inputs = {
        "target_tokens": types.TensorData(data=tokens[1:], dtype="int64", shape=[len(tokens) - 1]),
        "weights": types.TensorData(data=weights or [1.0] * (len(tokens) - 1), dtype="float32", shape=[len(tokens) - 1]),
    }
    return types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)


def logprobs(training, data):
    outputs = training.forward(data, "cross_entropy").result().loss_fn_outputs
    return [list(output["logprobs"].data) for output in outputs]


def furthest(a, b):
    return max(abs(x - y) for xs, ys in zip(a, b) for x, y in zip(xs, ys))


def cross_entropy(training):
    data = [datum("the quick brown fox"), datum("pack my box")]
    losses = []
    for _ in range(15):
        step = training.forward_backward(data, "cross_entropy")
        optim = training.optim_step(ADAM)
        losses.append(step.result().metrics["loss:sum"])
        optim.result()
    check("cross entropy: the loss falls", losses[-1] < 0.5 * losses[0], f"{losses[0]:.2f} -> {losses[-1]:.2f}")
    lp = logprobs(training, data)
    after = training.forward(data, "cross_entropy").result().metrics["loss:sum"]
    check("loss:sum is -sum of logprobs", abs(after + sum(map(sum, lp))) < 1e-3, f"{after:.4f}")


def custom_dpo(training):
    """Direct preference optimisation of one pair, with the model's own logprobs at the start as the reference."""
    pair = [datum("Q: one\nA: uno"), datum("Q: one\nA: two")]
    reference = [torch.tensor(lp).sum() for lp in logprobs(training, pair)]

    def dpo(_, lp):
        margin = (lp[0].sum() - reference[0]) - (lp[1].sum() - reference[1])
        return -torch.nn.functional.logsigmoid(0.5 * margin), {"margin": margin.item()}

    losses, margins = [], []
    for _ in range(10):
        step = training.forward_backward_custom(pair, dpo).result()
        training.optim_step(ADAM).result()
        margins.append(step.metrics["margin"])
        losses.append(step.metrics.get("loss:sum"))
    check("custom DPO: the margin starts at 0", abs(margins[0]) < 1e-4, margins[0])
    check("custom DPO: the margin grows", margins[-1] > 1.0, f"{margins[-1]:.3f}")
    # From SDK 0.30 on the loss is the user's; before it is that of the second pass.
    if abs(losses[0] - math.log(2)) < 1e-3:
        want = math.log1p(math.exp(-0.5 * margins[1]))
        check("custom DPO: loss:sum is that of the margin", abs(losses[1] - want) < 1e-4, f"{losses[1]:.5f}")


def checkpoints(service, training):
    data = [datum("five dozen liquor jugs")]
    before = logprobs(training, data)
    path = training.save_state("first").result().path
    training.forward_backward(data, "cross_entropy").result()
    training.optim_step(ADAM).result()
    moved = furthest(logprobs(training, data), before)
    training.load_state(path).result()
    back = furthest(logprobs(training, data), before)
    check("save, step, load: the weights are back", back == 0.0 < moved, f"moved {moved:.3f}, back {back:.1e}")
    if hasattr(service, "create_training_client_from_state"):
        twin = ready(service.create_training_client_from_state(path))
        apart = furthest(logprobs(twin, data), before)
        check("a new client from the state has the weights", apart == 0.0, f"apart {apart:.1e}")


def sampling(training):
    prompt = types.ModelInput.from_ints(list(b"the quick br"))
    params = types.SamplingParams(max_tokens=7, temperature=0.0)
    sampler = ready(training.save_weights_and_get_sampling_client("sampler"))
    result = sampler.sample(prompt, num_samples=2, sampling_params=params).result()
    texts = [bytes(t for t in s.tokens if t < 256).decode(errors="replace") for s in result.sequences]
    check("greedy samples agree", len(texts) == 2 and texts[0] == texts[1], repr(texts[0]))
    check("a sample has a logprob for each token", len(result.sequences[0].logprobs) == 7, result.sequences[0].stop_reason)
    got = sampler.compute_logprobs(prompt).result()
    want = logprobs(training, [datum("the quick br")])
    check("compute_logprobs agrees with forward", got[0] is None and furthest([got[1:]], want) < 1e-4, f"{len(got)} tokens")


def large_result(training):
    # The first of two requests has 380 KiB of logprobs: the SDK is told the size first, where it asks for that.
    got = logprobs(training, [datum("abcdefgh" * 12)] * 1100)
    check("a large result arrives whole", [len(lp) for lp in got] == [95] * 1100, f"{sum(map(len, got))} logprobs")


def refusal(training):
    bad = types.Datum(
        model_input=types.ModelInput.from_ints([1, 2]),
        loss_fn_inputs={"target_tokens": types.TensorData(data=[3, 100_000], dtype="int64", shape=[2])},
    )
    try:
        training.forward_backward([bad], "cross_entropy").result()
        check("a bad token is refused", False, "accepted")
    except Exception as error:
        check("a bad token is refused", "100000" in str(error), str(error)[:100])


def main():
    url, base = sys.argv[1:]
    service = tinker.ServiceClient(base_url=url, api_key="tml-local")
    models = [model.model_name for model in service.get_server_capabilities().supported_models]
    check("the model is listed", base in models, ", ".join(models))
    training = ready(service.create_lora_training_client(base_model=base, rank=8, seed=1))
    info = training.get_info()
    check("get_info knows the model", info.model_data.model_name == base, info.model_id)
    for scenario in [cross_entropy, custom_dpo, sampling, large_result]:
        guarded(scenario, training)
    guarded(checkpoints, service, training)
    guarded(refusal, training)


def guarded(scenario, *arguments):
    try:
        scenario(*arguments)
    except Exception as error:
        check(f"{scenario.__name__} runs", False, f"{type(error).__name__}: {error}"[:200])


main()
