"""Files in Hugging Face's, PaddleNLP's and llama.cpp's names give the right logits, and come back equal to the bit."""

from __future__ import annotations

import json
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.registry.manager import load_family


def test_hugging_face_directory_comes_back_to_the_bit(
    llama: Callable[..., Any], write_baichuan: Callable[..., Path], load: Callable[[Path], CausalLM], tmp_path: Path
) -> None:
    folder = write_baichuan(llama(), second=True)
    theirs = load_file(folder / "model.safetensors")
    # The published files of 7B hold rotary tables.
    tables = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, dtype=np.float32)}
    save_file(theirs | tables, folder / "model.safetensors")
    model, family = load(folder), load_family("baichuan")
    save_model_directory(model, family, model.config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)
    fields = json.loads((tmp_path / "again" / "config.json").read_text())
    assert family.card.config_class.from_fields(fields) == model.config


@pytest.fixture
def golden(project: Path, tmp_path: Path) -> Callable[[str], tuple[CausalLM, dict[str, np.ndarray], np.ndarray, Any]]:
    """Return a function that loads the golden model from a ``.pdparams`` file: model, weights, ids, logits."""

    def make(kind: str) -> tuple[CausalLM, dict[str, np.ndarray], np.ndarray, Any]:
        folder, family = project / "tests" / "golden", load_family("baichuan")
        with np.load(folder / "baichuan.npz") as arrays:
            about = json.loads(str(arrays[f"about_{kind}"]))
            ids, expected = arrays[f"ids_{kind}"], arrays[f"logits_{kind}"]
        theirs = runpy.run_path(str(folder / "drawn.py"))["draw"](about["shapes"], about["seed"])
        file = tmp_path / "model_state.pdparams"
        file.write_bytes(pickle.dumps(theirs, protocol=4))
        model = load_model(family, family.card.config_class.from_fields(about["fields"]), file)
        model.eval()
        return model, theirs, ids, expected

    return make


@pytest.mark.parametrize("kind", ["7b", "13b"])
def test_paddlenlp_file_gives_its_logits(kind: str, golden: Callable[..., Any], logits: Callable[..., Any]) -> None:
    model, _, ids, expected = golden(kind)
    assert (model.config.rotary is None) == (kind == "13b")
    assert np.abs(logits(model, ids) - expected).max() < 1e-4


@pytest.mark.parametrize("kind", ["7b", "13b"])
def test_paddlenlp_file_comes_back_to_the_bit(kind: str, golden: Callable[..., Any]) -> None:
    model, theirs, _, _ = golden(kind)
    weight_map = load_family("baichuan").weight_map(model.config, "paddlenlp")
    assert weight_map is not None
    ours = {name: parameter.numpy() for name, parameter in parameters(model).items()}
    again = {}
    for step in expand(weight_map, model.config.num_layers):
        again.update(zip(step.theirs, to_theirs(step.rule, [ours[name] for name in step.ours]), strict=True))
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)


def permuted(name: str, array: np.ndarray) -> np.ndarray:
    """llama.cpp's converter moves the rows of q and k of every baichuan, of 13B as well."""
    if name.split(".")[-2] not in ("attn_q", "attn_k"):
        return array
    return array.reshape(6, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


@pytest.mark.parametrize("kind", ["7b", "13b"])
def test_gguf_file_gives_the_logits_of_the_directory_it_was_made_of(
    kind: str,
    llama: Callable[..., Any],
    write_baichuan: Callable[..., Path],
    write_gguf: Callable[..., Path],
    load: Callable[[Path], CausalLM],
    logits: Callable[..., np.ndarray],
) -> None:
    # A GGUF file states a length in any case: only the number of layers tells, as to llama.cpp.
    peer = llama(num_hidden_layers=40 if kind == "13b" else 3)
    ids = np.random.default_rng(0).integers(0, 300, [1, 60])
    expected = logits(load(write_baichuan(peer, alibi=kind == "13b")), ids)
    model = load(write_gguf(peer, "baichuan", rows=permuted))
    assert (model.config.rotary is None) == (kind == "13b")
    assert np.array_equal(logits(model, ids), expected)
