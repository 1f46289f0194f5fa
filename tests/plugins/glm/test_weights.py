"""Files in Hugging Face's and PaddleNLP's names load, with ``glm.`` or without, and come back equal to the bit."""

from __future__ import annotations

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
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.manager import load_family


@pytest.fixture
def config(golden: ModuleType) -> ModelConfig:
    fields = {**golden.CONFIG, "sop_token_id": golden.SOP, "blank_token_ids": [golden.MASK]}
    return load_family("glm").card.config_class.from_fields(fields)


@pytest.fixture
def hf_weights(golden: ModuleType) -> dict[str, np.ndarray]:
    """The golden weights as torch has them: [out, in]."""
    return {
        name: np.ascontiguousarray(value.T if is_linear(name) else value) for name, value in golden.weights().items()
    }


def is_linear(name: str) -> bool:
    return name.endswith(".weight") and ("dense" in name or "query_key_value" in name)


@pytest.mark.parametrize("prefix", ["glm.", ""])
def test_hugging_face_directory_comes_back_to_the_bit(
    config: ModelConfig, hf_weights: dict[str, np.ndarray], tmp_path: Path, prefix: str
) -> None:
    # The published files were saved from the model without its head, whose names lack glm.
    published = {f"{prefix}{name.removeprefix('glm.')}": value for name, value in hf_weights.items()}
    save_file(published, tmp_path / "model.safetensors")
    family = load_family("glm")
    model = load_model(family, config, tmp_path)
    save_model_directory(model, family, config, None, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == hf_weights.keys()
    assert all(np.array_equal(again[name], hf_weights[name]) for name in again)


def test_a_tensor_that_is_missing_is_named_without_the_prefix_that_the_file_lacks(
    config: ModelConfig, hf_weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    published = {name.removeprefix("glm."): value for name, value in hf_weights.items()}
    del published["transformer.final_layernorm.bias"]
    save_file(published, tmp_path / "model.safetensors")
    with pytest.raises(WeightError, match=r": transformer\.final_layernorm\.bias is missing\.$"):
        load_model(load_family("glm"), config, tmp_path)


def test_paddlenlp_file_comes_back_to_the_bit(config: ModelConfig, golden: ModuleType, tmp_path: Path) -> None:
    family, theirs = load_family("glm"), golden.weights()
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
