"""An OPT's weights out of the files of Meta and PaddleNLP."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.errors import WeightError
from llm_run.core.registry.manager import load_family

HEAD = "lm_head.decoder_weight"
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 96,
    "max_position_embeddings": 128,
}
Case = Callable[[str, str], tuple[Path, np.ndarray, np.ndarray]]


@pytest.mark.parametrize("case", ["plain", "projected"])
def test_logits_equal_those_of_paddlenlp(
    case: str, paddlenlp_case: Case, load: Callable[[Path], CausalLM], logits: Callable[..., np.ndarray]
) -> None:
    directory, ids, expected = paddlenlp_case("opt", case)
    assert np.abs(logits(load(directory), ids) - expected).max() < 1e-4


@pytest.mark.parametrize("case", ["plain", "projected"])
def test_paddlenlp_file_comes_back_to_the_bit(
    case: str, paddlenlp_case: Case, load: Callable[[Path], CausalLM]
) -> None:
    directory = paddlenlp_case("opt", case)[0]
    theirs = pickle.loads((directory / "model_state.pdparams").read_bytes())
    model = load(directory)
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    weight_map = load_family("opt").weight_map(model.config, "paddlenlp")
    assert weight_map is not None
    again = {}
    for step in expand(weight_map, model.config.num_layers):
        again.update(zip(step.theirs, to_theirs(step.rule, [ours[name] for name in step.ours]), strict=True))
    assert again.keys() == theirs.keys() - {HEAD}
    assert all(np.array_equal(again[name], theirs[name]) for name in again)


def with_random_head(directory: Path) -> np.ndarray:
    file = directory / "model_state.pdparams"
    weights = pickle.loads(file.read_bytes())
    weights[HEAD] = np.random.default_rng(0).uniform(-0.1, 0.1, weights[HEAD].shape).astype(np.float32)
    file.write_bytes(pickle.dumps(weights, protocol=4))
    head: np.ndarray = weights[HEAD]
    return head


def test_a_head_that_paddlenlp_left_random_does_not_pass_unnoticed(
    paddlenlp_case: Case, load: Callable[[Path], CausalLM]
) -> None:
    """Its conversion from torch never fills the head: the published models have the embedding there."""
    directory = paddlenlp_case("opt", "plain")[0]
    with_random_head(directory)
    with pytest.raises(WeightError, match=r"lm_head\.decoder_weight .* differs from opt\.embeddings\.word_embeddings"):
        load(directory)


def test_a_head_that_was_trained_apart_is_read_where_the_config_says_so(
    paddlenlp_case: Case, load: Callable[[Path], CausalLM]
) -> None:
    directory = paddlenlp_case("opt", "plain")[0]
    head = with_random_head(directory)
    config = directory / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": False}))
    assert np.array_equal(load(directory).lm_head.weight.numpy(), head.T)


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize("changes", [{}, {"do_layer_norm_before": False, "word_embed_proj_dim": 32}])
def test_hugging_face_directory_comes_back_to_the_bit(
    prefix: str,
    changes: dict[str, Any],
    random_peer: Callable[[Any], Any],
    load: Callable[[Path], CausalLM],
    tmp_path: Path,
) -> None:
    random_peer(transformers.OPTConfig(**SHAPE | changes))
    theirs = load_file(tmp_path / "model.safetensors")
    published = {f"{prefix}{name.removeprefix('model.')}": value for name, value in theirs.items()}
    save_file(published, tmp_path / "model.safetensors")
    model = load(tmp_path)
    save_model_directory(model, load_family("opt"), model.config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)
