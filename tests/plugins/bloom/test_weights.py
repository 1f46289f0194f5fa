"""A BLOOM's weights out of the files of BigScience, PaddleNLP and llama.cpp."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.registry.manager import load_family

HEADS, SIZE = 6, 12
PEER = transformers.BloomConfig(vocab_size=300, hidden_size=HEADS * SIZE, n_layer=2, n_head=HEADS)
Case = Callable[[str, str], tuple[Path, np.ndarray, np.ndarray]]


def test_logits_equal_those_of_paddlenlp(
    paddlenlp_case: Case, load: Callable[[Path], CausalLM], logits: Callable[..., np.ndarray]
) -> None:
    directory, ids, expected = paddlenlp_case("bloom", "bloom")
    assert np.abs(logits(load(directory), ids) - expected).max() < 1e-4


def test_paddlenlp_file_comes_back_to_the_bit(paddlenlp_case: Case, load: Callable[[Path], CausalLM]) -> None:
    directory = paddlenlp_case("bloom", "bloom")[0]
    theirs = pickle.loads((directory / "model_state.pdparams").read_bytes())
    model = load(directory)
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    weight_map = load_family("bloom").weight_map(model.config, "paddlenlp")
    assert weight_map is not None
    again = {}
    for step in expand(weight_map, model.config.num_layers):
        again.update(zip(step.theirs, to_theirs(step.rule, [ours[name] for name in step.ours]), strict=True))
    assert again.keys() == theirs.keys() - {"lm_head.decoder_weight"}
    assert all(np.array_equal(again[name], theirs[name]) for name in again)


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_hugging_face_directory_comes_back_to_the_bit(
    prefix: str, random_peer: Callable[[Any], Any], load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    random_peer(PEER)
    theirs = load_file(tmp_path / "model.safetensors")
    # BigScience's files were saved from the model without its head, whose names lack transformer.
    published = {f"{prefix}{name.removeprefix('transformer.')}": value for name, value in theirs.items()}
    save_file(published, tmp_path / "model.safetensors")
    model = load(tmp_path)
    save_model_directory(model, load_family("bloom"), model.config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)


def test_each_head_brings_its_query_key_and_value(
    random_peer: Callable[[Any], Any], load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    fused = random_peer(PEER).transformer.h[1].self_attention.query_key_value.weight.detach().numpy()
    attention = load(tmp_path).blocks[1].attention
    by_head = fused.reshape(HEADS, 3, SIZE, HEADS * SIZE)
    for part, projection in enumerate((attention.q_proj, attention.k_proj, attention.v_proj)):
        expected = paddle.to_tensor(by_head[:, part].reshape(HEADS * SIZE, -1).T)
        assert paddle.equal_all(projection.weight, expected).item()


@pytest.mark.parametrize("has_copy", [True, False])
def test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of(
    has_copy: bool,
    random_peer: Callable[[Any], Any],
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
    tmp_path: Path,
) -> None:
    """llama.cpp puts all queries first, then all keys, all values; and writes the embedding once more as the head."""

    def regrouped(name: str, array: np.ndarray) -> np.ndarray:
        if "attn_qkv" not in name:
            return array
        return array.reshape(HEADS, 3, SIZE, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)

    peer = random_peer(PEER)
    ids = np.random.default_rng(0).integers(0, 300, [1, 60])
    expected = logits(load(tmp_path), ids)
    copy = {"output.weight": peer.transformer.word_embeddings.weight.detach().numpy()} if has_copy else {}
    bare = SimpleNamespace(config=peer.config, state_dict=peer.transformer.state_dict)
    model = load(write_gguf(bare, "bloom", rows=regrouped, extra=copy))
    assert np.abs(logits(model, ids) - expected).max() < 1e-5
    assert model.config.tie_embeddings == (not has_copy)
