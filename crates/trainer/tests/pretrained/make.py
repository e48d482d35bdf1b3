"""Writes the checkpoints of this folder, and what Hugging Face's implementation makes of them.

usage: make.py OUT_DIR        (with torch, transformers and safetensors; 2.15, 5.23 and 0.8 made the files here)

Every ratio that could be mistaken differs from one: heads and key heads, head width and hidden / heads, hidden and MLP
width. Norms and biases are random too, since trained ones are not one and zero.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

SIZES = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=6, max_position_embeddings=64, rms_norm_eps=1e-5)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
TOKENS = [(7 * i * i + 3 * i + 5) % 40 for i in range(30)]


def randomise(model, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        center, width = (1.0, 0.2) if "norm" in name else (0.0, 1.0 if "embed" in name else 0.3)
        # Rounded to what the file holds, so that both sides start from the same numbers.
        weight.data = (center + width * noise).to(dtype).float()
    return model.eval()


def logprobs(model):
    with torch.no_grad():
        table = model.double()(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
    return [table[t, token].item() for t, token in enumerate(TOKENS[1:])]


def write(out, model, dtype, shards):
    out.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in model.config.to_dict().items() if v is not None}
    (out / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tied = model.config.tie_word_embeddings
    tensors = {name: weight.to(dtype).contiguous() for name, weight in model.state_dict().items()
               if not (tied and name == "lm_head.weight")}
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(weight_map.values())):
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, out / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def main():
    out = Path(sys.argv[1])
    qwen3 = Qwen3Config(**SIZES, tie_word_embeddings=False, eos_token_id=3, attn_implementation="eager")
    llama = LlamaConfig(**SIZES, tie_word_embeddings=True, eos_token_id=[3, 4], attention_bias=True, mlp_bias=True,
                        rope_parameters=LLAMA3, attn_implementation="eager")
    expected = {"tokens": TOKENS}
    for name, model, dtype, shards in [
        ("qwen3", randomise(Qwen3ForCausalLM(qwen3), 1, torch.bfloat16), torch.bfloat16, 1),
        ("llama", randomise(LlamaForCausalLM(llama), 2, torch.float16), torch.float16, 2),
    ]:
        write(out / name, model, dtype, shards)
        expected[name] = logprobs(model)
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
