"""Writes a small random checkpoint in the shape of Qwen3, with a byte tokenizer: the same bytes on every machine.

usage: tiny_model.py OUT_DIR        (with numpy, safetensors and tokenizers)

A token id is a byte's value; 256 to 258 are special.
"""
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS = 320, 64, 2, 4, 2
HEAD_DIM, MLP = HIDDEN // HEADS, 2 * HIDDEN
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tokenizer():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    alphabet = [chr(b) if b in printable else chr(next(others)) for b in range(256)]
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    return made


def weights():
    # The order of the draws is part of the checkpoint.
    rng = np.random.default_rng(0)
    ones = lambda n: np.ones(n, np.float32)
    matrix = lambda rows, cols: (rng.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)
    tensors = {
        "model.embed_tokens.weight": rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32),
        "model.norm.weight": ones(HIDDEN),
        "lm_head.weight": matrix(VOCAB, HIDDEN),
    }
    for i in range(LAYERS):
        shapes = {
            "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
            "mlp.gate_proj": (MLP, HIDDEN),
            "mlp.up_proj": (MLP, HIDDEN),
            "mlp.down_proj": (HIDDEN, MLP),
        }
        layer = {name: matrix(*shape) for name, shape in shapes.items()}
        layer |= {f"self_attn.{x}_norm": ones(HEAD_DIM) for x in "qk"}
        layer |= {f"{x}_layernorm": ones(HIDDEN) for x in ["input", "post_attention"]}
        tensors |= {f"model.layers.{i}.{name}.weight": tensor for name, tensor in layer.items()}
    return tensors


CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": VOCAB, "hidden_size": HIDDEN,
    "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": False,
    "use_cache": True, "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 256, "torch_dtype": "float32",
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
}


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1))
    (out / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=1))
    tokenizer().save(str(out / "tokenizer.json"))
    save_file(weights(), out / "model.safetensors", metadata={"format": "pt"})


main()
