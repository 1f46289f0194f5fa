"""Tokens per second of the C++ decoder step against llama.cpp and Hugging Face transformers, in turns.

python benchmarks/decode.py --folder FOLDER --llama_cpp_python PYTHON [--shape 270m] [--sides ...] [--rounds 3]

Random llamas of one shape: FOLDER gets GGUF files (F32, Q8_0, Q4_0). PYTHON is an interpreter with llama-cpp-python.
Needs gguf, torch and transformers. Each side has a process of its own and as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from decode_work import BATCH, MOST_TOKENS, SHAPES, Model, measure
from turns import Side, serve

BLOCK_TOKENS = 16
OURS = {
    "float32": None, "bfloat16": None, "int8": (8, 32), "int8-row": (8, -1), "w8a8": (8, -1), "int4": (4, 32),
    "int4-128": (4, 128), "int8-a8": (8, 32), "int4-a8": (4, 32),
}  # fmt: skip
"""Bits and group size; the head is quantized with the rest, as in a GGUF file of one type."""
BY_BLOCK = {"w8a8": False, "int8-a8": True, "int4-a8": True}
"""Of activations of 8 bits: whether each block of inputs has a scale (``--activations_int8``), or a whole token."""
PEERS = {
    "float32": "F32", "bfloat16": "F32", "int8": "Q8_0", "int8-row": "Q8_0", "w8a8": "Q8_0", "int4": "Q4_0",
    "int4-128": "Q4_0", "int8-a8": "Q8_0", "int4-a8": "Q4_0",
}  # fmt: skip
"""The file that a side is compared with."""


class Ours:
    """The runner of the engine, with pages for all sequences."""

    def __init__(self, shape: str, kind: str) -> None:
        import paddle

        from llm_run.core.engine.fused_runner import FusedRunner
        from llm_run.core.engine.paged_runner import PagedRunner
        from llm_run.core.registry.manager import load_family

        family = load_family("llama")
        fields = {"model_type": "llama", **SHAPES[shape]}
        if OURS[kind] is not None:
            fields["tie_word_embeddings"] = False  # --quantize_lm_head
        config = family.card.config_class.from_fields(fields)
        model = family.build_model(config)
        model.eval()
        if kind == "bfloat16":
            for layer in model.sublayers():
                if isinstance(layer, paddle.nn.Linear):
                    layer.to(dtype="bfloat16")
        if OURS[kind] is not None:
            quantize(model, *OURS[kind], BY_BLOCK.get(kind))
        self.model = model
        self._blocks = -(-MOST_TOKENS // BLOCK_TOKENS) + BATCH
        self._runner = FusedRunner(model, PagedRunner(model, self._blocks, BLOCK_TOKENS), BLOCK_TOKENS)
        self._tables: list[list[int]] = []
        self._lengths: list[int] = []

    def bytes_read(self, context: int) -> int:
        """Return what one token reads that follows so many: all matrices, and the keys and values."""
        step = self._runner._step
        pages = step.pages.keys + step.pages.values
        a_token = sum(page.size // page.shape[0] * page.element_size() for page in pages)
        return sum(matrix.num_bytes for matrix in step.plan.matrices()) + context * a_token

    def reset(self, num_sequences: int) -> None:
        width = self._blocks // num_sequences
        self._tables = [list(range(row * width, (row + 1) * width)) for row in range(num_sequences)]
        self._lengths = [0] * num_sequences

    def feed(self, tokens: list[list[int]]) -> None:
        from llm_run.core.ops.decoder_step import StepRows

        ids, positions, starts = [], [], [0]
        for place, new in enumerate(tokens):
            ids += new
            positions += range(self._lengths[place], self._lengths[place] + len(new))
            starts.append(len(ids))
            self._lengths[place] += len(new)
        wanted = [start - 1 for start in starts[1:]]
        self._runner.forward(ids, positions, StepRows(starts, self._lengths, self._tables, wanted))


def quantize(model: object, bits: int, group_size: int, by_block: bool | None) -> None:
    import paddle

    from llm_run.core.quant.grid import GridSpec, round_to_nearest
    from llm_run.core.quant.layer import InputQuantization, QuantizedLinear, pack_weight, put_layers

    layers = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, paddle.nn.Linear)}
    spec = GridSpec(bits=bits, group_size=group_size)
    inputs = None if by_block is None else InputQuantization(by_block=by_block)
    put_layers(
        model,
        {
            name: QuantizedLinear(
                pack_weight(*round_to_nearest(layer.weight.numpy().T, spec)), layer.bias, inputs=inputs
            )
            for name, layer in layers.items()
        },
    )


class Transformers:
    """Hugging Face's own model and cache, float32."""

    def __init__(self, shape: str) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        self._torch = torch
        self._model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape])).eval()
        self._cache = None

    def reset(self, num_sequences: int) -> None:
        self._cache = None

    def feed(self, tokens: list[list[int]]) -> None:
        with self._torch.inference_mode():
            ids = self._torch.tensor(tokens)
            out = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = out.past_key_values


def write_gguf(path: Path, shape: str, kind: str) -> None:
    """Write a random llama without a tokenizer."""
    import gguf

    fields, random = SHAPES[shape], np.random.default_rng(0)
    hidden, heads, kv_heads = (fields[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(fields["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(fields["num_hidden_layers"])
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])
    writer.add_rope_freq_base(fields["rope_theta"])
    writer.add_vocab_size(fields["vocab_size"])
    writer.add_tokenizer_model("no_vocab")

    def matrix(name: str, rows: int, columns: int) -> None:
        values = random.standard_normal([rows, columns], dtype=np.float32) * np.float32(0.02)
        if kind == "F32":
            writer.add_tensor(name, values)
        else:
            packed = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(values, packed), raw_dtype=packed)

    kv_width, ffn = kv_heads * hidden // heads, fields["intermediate_size"]
    matrix("token_embd.weight", fields["vocab_size"], hidden)
    for i in range(fields["num_hidden_layers"]):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(hidden, np.float32))
        for name, rows, columns in (
            ("attn_q", hidden, hidden), ("attn_k", kv_width, hidden), ("attn_v", kv_width, hidden),
            ("attn_output", hidden, hidden), ("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ):  # fmt: skip
            matrix(f"blk.{i}.{name}.weight", rows, columns)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    if not fields["tie_word_embeddings"]:
        matrix("output.weight", fields["vocab_size"], hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def start(name: str, arguments: argparse.Namespace) -> Side:
    """Start a side; llama.cpp's are named by the type of their file."""
    if name not in PEERS.values():
        return Side(["--side", name, "--shape", arguments.shape], is_paddle=name != "transformers")
    path = arguments.folder / f"{arguments.shape}.{name}.gguf"
    if not path.exists():
        arguments.folder.mkdir(parents=True, exist_ok=True)
        write_gguf(path, arguments.shape, name)
    script = str(Path(__file__).with_name("decode_llama_cpp.py"))
    return Side([str(path)], is_paddle=False, interpreter=arguments.llama_cpp_python, script=script)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("decode-models"))
    parser.add_argument("--llama_cpp_python")
    parser.add_argument("--shape", choices=SHAPES, default="270m")
    parser.add_argument("--sides", nargs="+", choices=OURS, default=["float32", "int8", "int4"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        model: Model = (
            Transformers(arguments.shape) if arguments.side == "transformers" else Ours(arguments.shape, arguments.side)
        )
        serve(lambda: measure(model))
        return
    peers = dict.fromkeys(PEERS[side] for side in arguments.sides) if arguments.llama_cpp_python else {}
    names = [*arguments.sides, *peers, "transformers"]
    sides = {name: start(name, arguments) for name in names}
    rounds = [{name: sides[name].work()[1] for name in names} for _ in range(arguments.rounds + 1)][1:]
    for side in sides.values():
        side.stop()
    for measurement in rounds[0][names[0]]:
        median = {name: statistics.median(one[name][measurement] for one in rounds) for name in names}
        print(f"{measurement:16}", "  ".join(f"{name} {value:.1f}" for name, value in median.items()), "tokens/s")
        for side in arguments.sides:
            for peer in (PEERS[side], "transformers"):
                if peer in sides and (peer != "transformers" or side == "float32"):
                    ratio = statistics.median(one[side][measurement] / one[peer][measurement] for one in rounds)
                    print(f"{'':16} {side} / {peer}: {ratio:.2f}")


if __name__ == "__main__":
    main()
