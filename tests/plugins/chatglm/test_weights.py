"""Files in Hugging Face's and PaddleNLP's names load, and come back equal to the bit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.save import save_model_directory
from llm_run.core.convert.transforms import to_theirs
from llm_run.core.convert.weights import expand
from llm_run.core.errors import WeightError
from llm_run.core.registry.manager import load_family


@pytest.fixture
def hf_weights(golden: ModuleType) -> dict[str, np.ndarray]:
    """The golden weights as torch has them: [out, in], below ``transformer.``."""
    return {
        name.removeprefix("chatglm."): np.ascontiguousarray(value.T if is_linear(name) else value)
        for name, value in golden.weights().items()
    }


def is_linear(name: str) -> bool:
    return name.endswith(".weight") and ("dense" in name or "query_key_value" in name)


def test_hugging_face_directory_comes_back_to_the_bit(
    golden: ModuleType, hf_weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    family = load_family("chatglm")
    config = family.card.config_class.from_fields(golden.CONFIG)
    # The published files hold the tied head once more, and rotary tables.
    copies = {
        "lm_head.weight": hf_weights["transformer.word_embeddings.weight"],
        "transformer.layers.0.attention.rotary_emb.inv_freq": np.ones(2, dtype=np.float32),
    }
    save_file({**hf_weights, **copies}, tmp_path / "model.safetensors")
    model = load_model(family, config, tmp_path)
    save_model_directory(model, family, config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == hf_weights.keys()
    assert all(np.array_equal(again[name], hf_weights[name]) for name in again)
    fields = json.loads((tmp_path / "again" / "config.json").read_text())
    assert family.card.config_class.from_fields(fields) == config


def test_paddlenlp_file_comes_back_to_the_bit(golden: ModuleType, tmp_path: Path) -> None:
    family = load_family("chatglm")
    config = family.card.config_class.from_fields(golden.CONFIG)
    theirs = golden.weights()
    file = tmp_path / "model_state.pdparams"
    file.write_bytes(pickle.dumps(theirs, protocol=4))
    ours = {name: parameter.numpy() for name, parameter in parameters(load_model(family, config, file)).items()}
    weight_map = family.weight_map(config, "paddlenlp")
    assert weight_map is not None
    again = {}
    for step in expand(weight_map, config.num_layers):
        again.update(zip(step.theirs, to_theirs(step.rule, [ours[name] for name in step.ours]), strict=True))
    assert again.keys() == theirs.keys()
    assert all(np.array_equal(again[name], theirs[name]) for name in theirs)


def test_both_layouts_hold_the_same_model(
    golden: ModuleType, hf_weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    family = load_family("chatglm")
    config = family.card.config_class.from_fields(golden.CONFIG)
    save_file(hf_weights, tmp_path / "model.safetensors")
    (tmp_path / "model_state.pdparams").write_bytes(pickle.dumps(golden.weights(), protocol=4))
    first = parameters(load_model(family, config, tmp_path / "model.safetensors"))
    second = parameters(load_model(family, config, tmp_path / "model_state.pdparams"))
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


def test_a_head_that_is_no_copy_of_the_embedding_is_refused(
    golden: ModuleType, hf_weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    family = load_family("chatglm")
    head = hf_weights["transformer.word_embeddings.weight"] + 1
    save_file({**hf_weights, "lm_head.weight": head}, tmp_path / "model.safetensors")
    with pytest.raises(WeightError, match=r"lm_head\.weight .* differs from transformer\.word_embeddings\.weight"):
        load_model(family, family.card.config_class.from_fields(golden.CONFIG), tmp_path)
