from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import paddle
import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_run.core.convert.dtypes import cast, to_float32
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import parameters
from llm_run.core.convert.source import open_tensors
from llm_run.core.errors import WeightError
from llm_run.core.registry.facts import ModelConfig
from llm_run.core.registry.family import Family
from llm_run.core.registry.manager import load_family


def _values(model: Any) -> dict[str, np.ndarray]:
    return {name: parameter.numpy() for name, parameter in parameters(model).items()}


def _assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name].view(np.uint32), other[name].view(np.uint32)), name


def _with_config(hf: Path, directory: Path) -> Path:
    (directory / "config.json").write_text((hf / "config.json").read_text())
    return directory


@pytest.fixture(scope="module")
def reference(llama: Family, tiny: ModelConfig, hf_tiny: Path) -> dict[str, np.ndarray]:
    """The parameters as they come out of the safetensors file."""
    return _values(load_model(llama, tiny, hf_tiny))


def test_float32_weights_arrive_to_the_bit(reference: dict[str, np.ndarray], hf_tiny: Path) -> None:
    theirs = load_file(hf_tiny / "model.safetensors")
    assert np.array_equal(reference["embed_tokens.weight"], theirs["model.embed_tokens.weight"].numpy())
    query = theirs["model.layers.1.self_attn.q_proj.weight"].numpy()
    assert np.array_equal(reference["blocks.1.attention.q_proj.weight"], query.T)


def test_a_loaded_model_is_an_ordinary_one(llama: Family, tiny: ModelConfig, hf_tiny: Path) -> None:
    model = load_model(llama, tiny, hf_tiny)
    for parameter in model.parameters():
        assert parameter._is_initialized() and not parameter.stop_gradient and parameter.dtype == paddle.float32
    optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
    before = _values(model)
    weight = parameters(model)["lm_head.weight"]
    (weight * weight).sum().backward()
    optimizer.step()
    assert np.allclose(weight.numpy(), before["lm_head.weight"] * 0.8, rtol=1e-5)


def test_a_torch_file_gives_the_same_model(
    llama: Family, tiny: ModelConfig, hf_tiny: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    torch.save(load_file(hf_tiny / "model.safetensors"), tmp_path / "pytorch_model.bin")
    _assert_same(_values(load_model(llama, tiny, tmp_path)), reference)


def test_shards_that_transformers_cut_give_the_same_model(
    llama: Family, tiny: ModelConfig, hf_tiny: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(hf_tiny).save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    _assert_same(_values(load_model(llama, tiny, tmp_path)), reference)


def test_a_paddlenlp_file_gives_the_same_model(
    llama: Family, tiny: ModelConfig, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """PaddleNLP names everything as Hugging Face with another prefix, and keeps matrices as [in, out]."""
    from llm_run.core.convert.weights import expand

    weight_map = llama.weight_map(tiny, "paddlenlp")
    assert weight_map is not None
    state = {step.theirs[0]: reference[step.ours[0]] for step in expand(weight_map, tiny.num_layers)}
    paddle.save(state, str(tmp_path / "model_state.pdparams"))
    _assert_same(_values(load_model(llama, tiny, tmp_path)), reference)


def _write_gguf(path: Path, hf: Path, tiny: ModelConfig) -> None:
    """Write what llama.cpp's converter would: its names, and the rows of q and k as pairs."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, tiny.num_layers)
    writer = gguf.GGUFWriter(path, "llama")
    for name, tensor in load_file(hf / "model.safetensors").items():
        data = tensor.numpy()
        heads = {"q_proj": tiny.num_heads, "k_proj": tiny.num_kv_heads}.get(name.split(".")[-2])
        if heads is not None:
            data = data.reshape(heads, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape).copy()
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_the_same_model(
    llama: Family, tiny: ModelConfig, hf_tiny: Path, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    _write_gguf(tmp_path / "x.gguf", hf_tiny, tiny)
    _assert_same(_values(load_model(llama, tiny, tmp_path / "x.gguf")), reference)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_are_widened(
    dtype: torch.dtype,
    llama: Family,
    tiny: ModelConfig,
    hf_tiny: Path,
    reference: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(hf_tiny / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    name = str(dtype).removeprefix("torch.")
    expected = {key: to_float32(cast(value, "float32", name), name) for key, value in reference.items()}
    _assert_same(_values(load_model(llama, tiny, tmp_path)), expected)


def test_fused_weights_of_another_family_are_taken_apart(tmp_path: Path) -> None:
    family = load_family("qwen")
    config = next(c for name, c in family.card.sizes.items() if getattr(c, "generation", 0) == 1)
    model = family.build_model(config)
    if sum(p.size for p in model.parameters()) > 10_000_000:
        pytest.skip("the family has no small variant with fused weights")
    expected = _values(model)
    from llm_run.core.convert.save import save_model_directory

    save_model_directory(model, family, config, None, tmp_path / "out")
    names = set(open_tensors(tmp_path / "out").entries)
    assert "transformer.h.0.attn.c_attn.weight" in names
    _assert_same(_values(load_model(family, config, tmp_path / "out")), expected)


def test_nothing_is_filled_when_the_last_tensor_is_missing(
    llama: Family, tiny: ModelConfig, hf_tiny: Path, tmp_path: Path
) -> None:
    tensors = load_file(hf_tiny / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    filled: list[str] = []
    with pytest.raises(WeightError, match=r"1 tensor does not fit the model: lm_head\.weight is missing"):
        load_model(llama, tiny, tmp_path, on_tensor=filled.append)
    assert filled == []


def test_progress_is_told_for_every_parameter(llama: Family, tiny: ModelConfig, hf_tiny: Path) -> None:
    filled: list[str] = []
    model = load_model(llama, tiny, hf_tiny, on_tensor=filled.append)
    assert sorted(filled) == sorted(parameters(model))


MEASURE = """
import dataclasses, json, sys
from pathlib import Path
import paddle
from llm_run.core.convert.load import load_model
from llm_run.core.registry.manager import load_family

def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) * 1024

family = load_family("llama")
config = dataclasses.replace(family.card.sizes["tiny"], **json.loads(sys.argv[2]))
load_model(family, family.card.sizes["tiny"], Path(sys.argv[3]))
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
model = load_model(family, config, Path(sys.argv[1]))
size = sum(p.size for p in model.parameters()) * 4
print((status("VmHWM") - before) / size, size)
"""


@pytest.mark.parametrize("kind", ["safetensors", "bin", "pdparams", "bfloat16"])
def test_the_peak_memory_of_loading_is_below_1_3_times_the_model(
    kind: str, llama: Family, tiny: ModelConfig, hf_tiny: Path, tmp_path: Path
) -> None:
    import dataclasses

    from llm_run.core.convert.weights import expand

    shape = {"vocab_size": 8000, "hidden_size": 1024, "num_layers": 4, "num_heads": 16, "num_kv_heads": 8,
             "head_dim": 64, "ffn_size": 2048}  # fmt: skip
    config = dataclasses.replace(tiny, **shape)
    weight_map = llama.weight_map(config, "paddlenlp" if kind == "pdparams" else "hf")
    assert weight_map is not None
    from llm_run.core.convert.load import build_empty
    from llm_run.core.convert.transforms import foreign_shapes

    shapes = {name: tuple(p.shape) for name, p in parameters(build_empty(llama, config)).items()}
    state = {}
    for step in expand(weight_map, config.num_layers):
        for name, foreign in zip(step.theirs, foreign_shapes(step.rule, [shapes[n] for n in step.ours]), strict=True):
            state[name] = torch.rand(foreign, dtype=torch.bfloat16 if kind == "bfloat16" else torch.float32)
    if kind == "bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    elif kind == "pdparams":
        paddle.save({n: t.numpy() for n, t in state.items()}, str(tmp_path / "model_state.pdparams"))
    else:
        save_file(state, tmp_path / "model.safetensors")
    del state
    command = [sys.executable, "-c", MEASURE, str(tmp_path), json.dumps(shape), str(hf_tiny)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    ratio, size = map(float, done.stdout.split())
    assert size > 150e6
    assert 0.9 < ratio < 1.3, f"{kind}: {ratio:.2f} times"
