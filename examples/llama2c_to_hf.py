"""Turn a model of llama2.c (version 0 of its file format) into a Hugging Face model directory.

    python examples/llama2c_to_hf.py stories260K.bin tok512.model stories260K
    echo '{"src": "Once upon a time"}' > prompts.jsonl
    llm-run --task generate --model_name_or_path stories260K --data_file prompts.jsonl

The model tells stories and cannot chat: it has no chat template.

Source: karpathy/llama2.c, run.c: a header of seven int32, then float32 arrays in a fixed order.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HEADER = np.dtype(
    [(name, "<i4") for name in ("hidden", "ffn", "layers", "heads", "kv_heads", "vocabulary", "positions")]
)


@dataclass
class Reader:
    """The float32 arrays of the file, one after another."""

    values: np.ndarray
    position: int = 0

    def take(self, *shape: int) -> np.ndarray:
        """Return the next array."""
        start, self.position = self.position, self.position + int(np.prod(shape))
        return self.values[start : self.position].reshape(shape)


def halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of q or k: llama2.c rotates neighbours, Hugging Face the two halves of a head."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def read_weights(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Return the shape of the model, and its weights under Hugging Face's names."""
    header = np.fromfile(path, HEADER, count=1)[0]
    shape = {name: int(header[name]) for name in HEADER.names or ()}
    tied = shape["vocabulary"] > 0  # llama2.c marks a head of its own by a negative number
    shape["vocabulary"] = abs(shape["vocabulary"])
    layers, hidden, ffn, heads = shape["layers"], shape["hidden"], shape["ffn"], shape["heads"]
    size = hidden // heads
    keys = shape["kv_heads"] * size
    reader = Reader(np.fromfile(path, "<f4", offset=HEADER.itemsize))
    weights = {"model.embed_tokens.weight": reader.take(shape["vocabulary"], hidden)}
    stacks = {
        "input_layernorm": reader.take(layers, hidden),
        "self_attn.q_proj": reader.take(layers, hidden, hidden),
        "self_attn.k_proj": reader.take(layers, keys, hidden),
        "self_attn.v_proj": reader.take(layers, keys, hidden),
        "self_attn.o_proj": reader.take(layers, hidden, hidden),
        "post_attention_layernorm": reader.take(layers, hidden),
        "mlp.gate_proj": reader.take(layers, ffn, hidden),
        "mlp.down_proj": reader.take(layers, hidden, ffn),
        "mlp.up_proj": reader.take(layers, ffn, hidden),
    }
    rotated = {"self_attn.q_proj": heads, "self_attn.k_proj": shape["kv_heads"]}
    for name, stack in stacks.items():
        for layer, array in enumerate(stack):
            ordered = halves(array, rotated[name]) if name in rotated else array
            weights[f"model.layers.{layer}.{name}.weight"] = np.ascontiguousarray(ordered)
    weights["model.norm.weight"] = reader.take(hidden)
    reader.take(2, shape["positions"], size // 2)  # cosines and sines, which can be computed
    if not tied:
        weights["lm_head.weight"] = reader.take(shape["vocabulary"], hidden)
    return shape | {"tied": tied}, weights


def main(model: Path, tokenizer: Path, directory: Path) -> None:
    """Write the directory."""
    shape, weights = read_weights(model)
    directory.mkdir(parents=True)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(tokenizer, directory / "tokenizer.model")
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": shape["vocabulary"],
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["ffn"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "max_position_embeddings": shape["positions"],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": bool(shape["tied"]),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/llama2c_to_hf.py MODEL.bin TOKENIZER.model DIRECTORY")
    main(*map(Path, sys.argv[1:]))
