from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from llm_run.core.convert.fields import read_fields
from llm_run.core.errors import RefusedError


def _write(directory: Path, metadata: dict[str, Any], tensors: dict[str, np.ndarray] | None = None) -> Path:
    writer = gguf.GGUFWriter(directory / "x.gguf", "some")
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, data in (tensors or {}).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return directory / "x.gguf"


SHAPE = {
    "some.block_count": 3, "some.embedding_length": 64, "some.feed_forward_length": 128,
    "some.attention.head_count": 4, "some.attention.head_count_kv": 2, "some.context_length": 256,
    "some.attention.layer_norm_rms_epsilon": 1e-5, "some.rope.freq_base": 5e5, "some.rope.dimension_count": 16,
    "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 0,
}  # fmt: skip
EMBEDDING = {"token_embd.weight": np.zeros((40, 64), np.float32)}


def test_a_header_becomes_a_config_json(tmp_path: Path) -> None:
    assert read_fields(_write(tmp_path, SHAPE, EMBEDDING)) == {
        "model_type": "some", "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 40,
        "tie_word_embeddings": True,
    }  # fmt: skip


def test_a_head_of_its_own_is_not_tied(tmp_path: Path) -> None:
    tensors = {**EMBEDDING, "output.weight": np.zeros((40, 64), np.float32)}
    assert read_fields(_write(tmp_path, SHAPE, tensors))["tie_word_embeddings"] is False


def test_biases_are_seen_in_the_tensors(tmp_path: Path) -> None:
    tensors = {**EMBEDDING, "blk.0.attn_q.bias": np.zeros(64, np.float32), "blk.0.ffn_up.bias": np.zeros(8, np.float32)}
    fields = read_fields(_write(tmp_path, SHAPE, tensors))
    assert fields["attention_bias"] is True and fields["mlp_bias"] is True


def test_a_head_size_of_its_own_and_a_part_that_is_rotated_are_kept(tmp_path: Path) -> None:
    fields = read_fields(_write(tmp_path, {**SHAPE, "some.attention.key_length": 32}, EMBEDDING))
    assert (fields["head_dim"], fields["partial_rotary_factor"]) == (32, 0.5)


def test_rotary_scaling_is_spelled_as_in_transformers(tmp_path: Path) -> None:
    scaling = {"some.rope.scaling.type": "yarn", "some.rope.scaling.factor": 4.0,
               "some.rope.scaling.original_context_length": 128}  # fmt: skip
    fields = read_fields(_write(tmp_path, {**SHAPE, **scaling}, EMBEDDING))
    expected = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert fields["rope_scaling"] == expected


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_a_table_of_llama3_factors_becomes_its_formula_again(factor: float, tmp_path: Path) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}  # fmt: skip
    config = LlamaConfig(
        hidden_size=256, num_attention_heads=2, max_position_embeddings=131072,
        rope_parameters={"rope_theta": 5e5, **scaling},
    )  # fmt: skip
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 5e5 ** (np.arange(64) / 64)
    table = (plain / stretched.numpy()).astype(np.float32)
    assert math.isclose(table.max(), factor, rel_tol=1e-5) and table.min() < 1.001
    fields = read_fields(_write(tmp_path, SHAPE, {**EMBEDDING, "rope_freqs.weight": table}))
    assert fields["rope_scaling"] == scaling


def test_a_table_of_other_factors_is_refused(tmp_path: Path) -> None:
    table = np.linspace(1, 8, 64).astype(np.float32)
    with pytest.raises(RefusedError, match=r"rope_freqs\.weight: holds rotary factors that follow no known formula"):
        read_fields(_write(tmp_path, SHAPE, {**EMBEDDING, "rope_freqs.weight": table}))


def test_equal_values_for_all_layers_are_one_value(tmp_path: Path) -> None:
    fields = read_fields(_write(tmp_path, {**SHAPE, "some.attention.head_count_kv": [2, 2, 2]}, EMBEDDING))
    assert fields["num_key_value_heads"] == 2


def test_values_that_differ_from_layer_to_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"some\.attention\.head_count_kv: \[2, 4, 2\] differs from layer to layer"):
        read_fields(_write(tmp_path, {**SHAPE, "some.attention.head_count_kv": [2, 4, 2]}, EMBEDDING))


def test_a_file_without_architecture_is_refused(tmp_path: Path) -> None:
    import struct

    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(RefusedError, match=r"general\.architecture: is missing: this GGUF file holds no model"):
        read_fields(tmp_path / "x.gguf")
