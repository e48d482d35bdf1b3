"""Ten steps of a custom loss through the Python SDK; prints one line of JSON.

usage: loop.py URL BASE_MODEL LOSS [CHECKPOINT]      LOSS: dpo or squared-nll

Without a checkpoint it saves the fresh adapter first and tells where; with one it starts from that. So two servers can
start from the same weights. Printed: {"checkpoint", "logprobs": [step][sequence][token], "losses": [step]}.
"""
import json
import sys

import tinker
import torch
from tinker import types

RANK = 16
ADAM = types.AdamParams(learning_rate=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0)


def datum(text):
    tokens = list(text.encode())
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)},
    )


def dpo(reference, lp):
    margins = [(lp[i].sum() - reference[i]) - (lp[i + 1].sum() - reference[i + 1]) for i in range(0, len(lp), 2)]
    return -torch.nn.functional.logsigmoid(0.1 * torch.stack(margins)).mean()


def squared_nll(_, lp):
    return torch.stack([lp_i.square().mean() for lp_i in lp]).mean()


def main():
    url, base, loss = sys.argv[1:4]
    service = tinker.ServiceClient(base_url=url, api_key="tml-local-test")
    training = service.create_lora_training_client(base_model=base, rank=RANK, seed=3, train_unembed=False)
    checkpoint = sys.argv[4] if len(sys.argv) > 4 else None
    if checkpoint:
        training.load_state(checkpoint).result()
    else:
        checkpoint = training.save_state(f"start-{loss}").result().path
    pairs = [datum("Q: one\nA:" + answer) for answer in [" uno", " two", " un", " three"]]
    outputs = training.forward(pairs, "cross_entropy").result().loss_fn_outputs
    reference = [sum(output["logprobs"].data) for output in outputs]
    objective = {"dpo": dpo, "squared-nll": squared_nll}[loss]
    seen, losses = [], []

    def custom(_, lp):
        seen.append([x.tolist() for x in lp])
        value = objective(reference, lp)
        losses.append(value.item())
        return value, {}

    for _ in range(10):
        training.forward_backward_custom(pairs, custom).result()
        training.optim_step(ADAM).result()
    print(json.dumps({"checkpoint": checkpoint, "logprobs": seen, "losses": losses}))


main()
