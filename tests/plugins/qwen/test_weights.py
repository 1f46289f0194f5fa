"""A qwen's weights out of PaddleNLP and GGUF files."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
import transformers

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.save import save_model_directory
from llm_run.core.registry.manager import load_family

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
QWENS: dict[str, Any] = {
    "qwen2": transformers.Qwen2Config(**SHAPE),
    "qwen3": transformers.Qwen3Config(**SHAPE, head_dim=24, tie_word_embeddings=True),
}


@pytest.mark.parametrize("architecture", QWENS)
def test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of(
    architecture: str,
    random_peer: Callable[[Any], Any],
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    peer = random_peer(QWENS[architecture])
    ids = np.random.default_rng(0).integers(0, 300, [1, 60])
    expected = logits(load(tmp_path), ids)
    assert np.array_equal(logits(load(write_gguf(peer, architecture)), ids), expected)


def test_paddlenlp_directory_gives_its_logits(
    project: Path, load: Callable[[Path], CausalLM], logits: Callable[..., np.ndarray]
) -> None:
    directory = project / "tests" / "golden" / "paddlenlp_qwen2"
    with np.load(directory / "logits.npz") as golden:
        assert np.abs(logits(load(directory), golden["ids"]) - golden["logits"]).max() < 1e-4


@pytest.fixture
def first_peer(project: Path) -> Any:
    """A generation 1 model as its Hugging Face code holds it: the golden weights under the published names."""
    with np.load(project / "tests" / "golden" / "qwen_v1.npz") as golden:
        about = json.loads(str(golden["about"]))
    draw = runpy.run_path(str(project / "tests" / "golden" / "drawn.py"))["draw"]
    weights = {}
    for name, array in draw(about["shapes"], about["seed"]).items():
        is_linear = array.ndim == 2 and "wte" not in name
        weights[name.replace("qwen.", "transformer.", 1)] = np.ascontiguousarray(array.T if is_linear else array)
    fields = about["fields"] | {"architectures": ["QWenLMHeadModel"]}
    return SimpleNamespace(fields=fields, weights=weights)


def write_first(peer: Any, directory: Path) -> None:
    from safetensors.numpy import save_file

    save_file(peer.weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(peer.fields))


def test_first_generation_loads_under_its_hugging_face_names(
    first_peer: Any, project: Path, load: Callable[[Path], CausalLM], logits: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    write_first(first_peer, tmp_path)
    with np.load(project / "tests" / "golden" / "qwen_v1.npz") as golden:
        assert np.abs(logits(load(tmp_path), golden["ids_40"]) - golden["logits_40"]).max() < 1e-4


def test_first_generation_is_saved_under_the_same_names_to_the_bit(
    first_peer: Any, load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    write_first(first_peer, tmp_path)
    model = load(tmp_path)
    save_model_directory(model, load_family("qwen"), model.config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == first_peer.weights.keys()
    assert all(np.array_equal(again[name], array) for name, array in first_peer.weights.items())
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {name: saved[name] for name in first_peer.fields} == first_peer.fields


def test_first_generation_gguf_file_gives_the_golden_logits(
    first_peer: Any,
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
    project: Path,
) -> None:
    import torch

    config = SimpleNamespace(
        **first_peer.fields,
        num_key_value_heads=first_peer.fields["num_attention_heads"],
        rms_norm_eps=first_peer.fields["layer_norm_epsilon"],
        rope_parameters={"rope_theta": 10000.0},
    )
    tensors = {name: torch.from_numpy(array) for name, array in first_peer.weights.items()}
    model = load(write_gguf(SimpleNamespace(config=config, state_dict=lambda: tensors), "qwen"))
    with np.load(project / "tests" / "golden" / "qwen_v1.npz") as golden:
        assert np.abs(logits(model, golden["ids_12"]) - golden["logits_12"]).max() < 1e-4


def test_second_of_the_two_branches_is_the_gate(
    first_peer: Any, load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    write_first(first_peer, tmp_path)
    gate = load(tmp_path).blocks[0].feed_forward.gate_proj.weight
    assert paddle.equal_all(gate, paddle.to_tensor(first_peer.weights["transformer.h.0.mlp.w2.weight"].T)).item()
