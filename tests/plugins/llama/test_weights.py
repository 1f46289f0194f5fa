"""A llama's weights out of PaddleNLP and GGUF files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from llm_run.core.causal_lm import CausalLM
from llm_run.core.errors import WeightError

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMAS: dict[str, dict[str, Any]] = {
    "grouped heads": {},
    "tied": {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "biases": {"attention_bias": True, "mlp_bias": True, "head_dim": 24},
}


def permuted(name: str, array: np.ndarray) -> np.ndarray:
    """llama.cpp rotates neighbours, transformers halves; its converter moves the rows of q and k accordingly."""
    heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-2])
    if heads is None:
        return array
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


@pytest.mark.parametrize("changes", LLAMAS.values(), ids=LLAMAS.keys())
def test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of(
    changes: dict[str, Any],
    random_peer: Callable[[Any], Any],
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    peer = random_peer(transformers.LlamaConfig(**SHAPE | changes))
    ids = np.random.default_rng(0).integers(0, 300, [1, 60])
    expected = logits(load(tmp_path), ids)
    assert np.array_equal(logits(load(write_gguf(peer, "llama", rows=permuted)), ids), expected)


def stretched_factors(head_dim: int, base: float, factor: float) -> np.ndarray:
    """What llama.cpp's converter stores of a Llama 3.1's ``rope_scaling``, from the formula of the model card."""
    waves = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = (8192 / waves - 1.0) / (4.0 - 1.0)
    blend = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < 8192 / 4.0, 1.0, np.where(waves > 8192, factor, blend)).astype(np.float32)


def test_gguf_table_of_rotary_factors_becomes_llama3_scaling(
    random_peer: Callable[[Any], Any], write_gguf: Callable[..., Path], load: Callable[[Path], CausalLM]
) -> None:
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    peer = random_peer(transformers.LlamaConfig(**SHAPE, rope_parameters=rope))
    table = {"rope_freqs.weight": stretched_factors(16, 500000.0, 8.0)}
    scaling = load(write_gguf(peer, "llama", rows=permuted, extra=table)).config.rotary.scaling
    assert (scaling.kind, scaling.factor, scaling.original_max_positions) == ("llama3", 8.0, 8192)


def test_paddlenlp_directory_gives_its_logits(
    project: Path, load: Callable[[Path], CausalLM], logits: Callable[..., np.ndarray]
) -> None:
    directory = project / "tests" / "golden" / "paddlenlp_llama"
    with np.load(directory / "logits.npz") as golden:
        assert np.abs(logits(load(directory), golden["ids"]) - golden["logits"]).max() < 1e-4


def test_a_head_that_should_be_tied_and_is_not_is_refused(
    random_peer: Callable[[Any], Any], load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    random_peer(transformers.LlamaConfig(**SHAPE))
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    with pytest.raises(WeightError, match=r"lm_head\.weight .* differs from model\.embed_tokens\.weight"):
        load(tmp_path)
