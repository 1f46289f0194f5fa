"""Files in Hugging Face's, PaddleNLP's and llama.cpp's names give the right logits, and come back equal to the bit."""

from __future__ import annotations

import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.registry.manager import find_family, load_family

Golden = tuple[CausalLM, dict[str, np.ndarray], np.ndarray, np.ndarray]


def test_hugging_face_directory_comes_back_to_the_bit(
    glm: Callable[..., Any],
    write_chatglm2: Callable[..., Path],
    published_weights: Callable[[Any], dict[str, np.ndarray]],
    load: Callable[[Path], CausalLM],
    tmp_path: Path,
) -> None:
    peer = glm()
    model, theirs = load(write_chatglm2(peer)), published_weights(peer)
    save_model_directory(model, load_family("chatglm2"), model.config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)
    fields = json.loads((tmp_path / "again" / "config.json").read_text())
    assert find_family(fields).card.config_class.from_fields(fields) == model.config


@pytest.fixture
def golden(project: Path, tmp_path: Path) -> Golden:
    """The golden model out of a ``.pdparams`` file, its weights, and ids with PaddleNLP's logits."""
    folder = project / "tests" / "golden"
    with np.load(folder / "chatglm2.npz") as arrays:
        about, ids, expected = json.loads(str(arrays["about"])), arrays["ids"], arrays["logits"]
    theirs = runpy.run_path(str(folder / "drawn.py"))["draw"](about["shapes"], about["seed"])
    table = {"chatglm_v2.rotary_pos_emb.inv_freq": np.ones(4, dtype=np.float32)}
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(pickle.dumps(theirs | table, protocol=4))
    family = find_family(about["fields"])
    model = load_model(family, family.card.config_class.from_fields(about["fields"]), file)
    model.eval()
    return model, theirs, ids, expected


def test_paddlenlp_file_gives_its_logits(golden: Golden, logits: Callable[..., np.ndarray]) -> None:
    model, _, ids, expected = golden
    assert np.abs(logits(model, ids) - expected).max() < 1e-4


def test_paddlenlp_file_comes_back_to_the_bit(golden: Golden) -> None:
    model, theirs, _, _ = golden
    weight_map = load_family("chatglm2").weight_map(model.config, "paddlenlp")
    assert weight_map is not None
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    again = {}
    for step in expand(weight_map, model.config.num_layers):
        again.update(zip(step.theirs, to_theirs(step.rule, [ours[name] for name in step.ours]), strict=True))
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)


def test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of(
    glm: Callable[..., Any],
    write_chatglm2: Callable[..., Path],
    published_weights: Callable[[Any], dict[str, np.ndarray]],
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
) -> None:
    peer = glm()
    ids = np.random.default_rng(0).integers(0, 300, [1, 60])
    expected = logits(load(write_chatglm2(peer)), ids)
    # llama.cpp's converter takes "transformer." off; the gguf package knows the rest of the names.
    named = {name.removeprefix("transformer."): torch.tensor(array) for name, array in published_weights(peer).items()}
    file = write_gguf(SimpleNamespace(config=peer.config, state_dict=lambda: named), "chatglm")
    assert np.array_equal(logits(load(file), ids), expected)
