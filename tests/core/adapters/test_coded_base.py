"""Adapters on a frozen model that is kept as codes (QLoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.adapters.coded_base import build_base
from llm_run.core.adapters.coded_linear import CodedLinear, CodedLora
from llm_run.core.adapters.files import new_adapter
from llm_run.core.adapters.frozen import CodedMatrix
from llm_run.core.adapters.lora import lora_layers
from llm_run.core.adapters.off import adapters_off
from llm_run.core.adapters.settings import LoraSettings
from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.convert.fields import read_fields
from llm_run.core.convert.load import load_model
from llm_run.core.convert.logical import ModelTensors
from llm_run.core.convert.save import ModelParts, write_model_directory
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import Sample
from llm_run.core.errors import RefusedError
from llm_run.core.ops import AttentionMask
from llm_run.core.parallel.mesh import Mesh
from llm_run.core.parallel.model_part import ModelPart, matrix_sizes
from llm_run.core.quant.directory import ModelPacking, QuantizedTensors
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.methods import RoundToNearest
from llm_run.core.quant.plan import quantization_config
from llm_run.core.quant.quantize import quantize_by_blocks
from llm_run.core.request import prepare
from llm_run.core.run import Run

ALGORITHMS = ("nf4", "weight_only_int8", "weight_only_int4")


def request(model: Path, tmp_path: Path, **options: object) -> Run:
    """A run of ``--task lora``."""
    given = {"model_name_or_path": model, "dataset_name_or_path": tmp_path, "output_dir": tmp_path / "out"} | options
    words = ["--task", "lora", "--max_length", "32", "--src_length", "16"]
    for name, value in given.items():
        words += [f"--{name}", str(value)]
    return prepare(resolve(parse(words))[0])[0]


def base_of(model: Path, tmp_path: Path, **options: object) -> Any:
    run = request(model, tmp_path, **options)
    return run.family, build_base(run, Mesh(), model).model


def widened(model: Any) -> Any:
    """Put plain layers with the values of the codes in the place of coded ones."""
    for name, layer in list(model.named_sublayers()):
        if isinstance(layer, CodedLinear):
            plain = paddle.nn.Linear(*layer.frozen.shape, bias_attr=False)
            plain.weight.set_value(layer.frozen.values())
            plain.bias = layer.bias
            owner, _, last = name.rpartition(".")
            setattr(model.get_sublayer(owner), last, plain)
    return model


def loss_of(model: Any, ids: np.ndarray) -> Any:
    positions = paddle.to_tensor(np.broadcast_to(np.arange(ids.shape[1]), ids.shape).astype(np.int64))
    hidden = model(paddle.to_tensor(ids), positions, AttentionMask())
    return paddle.nn.functional.cross_entropy(
        model.head(hidden)[:, :-1].reshape([-1, 96]), paddle.to_tensor(ids[:, 1:].reshape(-1))
    )


def gradients(model: Any) -> dict[str, np.ndarray]:
    return {name: p.grad.numpy() for name, p in model.named_parameters() if not p.stop_gradient}


def with_adapter(model: Any, family: Any, **kind: bool) -> Any:
    """Give a model an adapter whose second matrices are not zeros."""
    new_adapter(model, family, LoraSettings(rank=3, alpha=6, **kind), seed=2)
    for layer in lora_layers(model).values():
        noise = np.random.default_rng(4).normal(0, 0.1, layer.lora_B.shape).astype(np.float32)
        layer.lora_B.set_value(layer.lora_B.numpy() + noise)
    model.train()
    return model


@pytest.mark.parametrize("kind", [{}, {"dora": True}, {"pissa": True}], ids=["lora", "dora", "pissa"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_adapter_learns_through_codes_what_it_learns_through_their_values(
    algorithm: str, kind: Mapping[str, bool], llama_dir: Path, tmp_path: Path, ids: np.ndarray
) -> None:
    found = []
    for widen in (False, True):
        family, model = base_of(llama_dir, tmp_path, weight_quantize_algo=algorithm)
        model = with_adapter(widened(model) if widen else model, family, **kind)
        assert any(isinstance(layer, CodedLora) for layer in lora_layers(model).values()) != widen
        loss = loss_of(model, ids)
        loss.backward()
        found.append((loss.item(), gradients(model)))
    (loss, ours), (expected, theirs) = found
    assert loss == pytest.approx(expected, rel=1e-6)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, theirs[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("options", "bits"), [
    ({"weight_quantize_algo": "nf4"}, 4.5), ({"weight_quantize_algo": "nf4", "weight_double_quant": "true"}, 4.2),
    ({"weight_quantize_algo": "weight_only_int4"}, 5.0), ({"weight_quantize_algo": "weight_only_int8"}, 9.0),
])  # fmt: skip
def test_matrices_are_in_memory_as_codes_only(
    options: dict[str, object], bits: float, llama_dir: Path, tmp_path: Path
) -> None:
    _, model = base_of(llama_dir, tmp_path, **options)
    coded = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, CodedLinear)}
    assert len(coded) == 14
    assert not [name for name, _ in model.named_parameters() if name.removesuffix(".weight") in coded]
    sizes = [layer.frozen.shape[0] * layer.frozen.shape[1] for layer in coded.values()]
    held = sum(layer.frozen.coded.num_bytes for layer in coded.values())
    assert 8 * held / sum(sizes) <= bits


def test_rounding_changes_the_model_a_little(ours: Any, llama_dir: Path, tmp_path: Path, ids: np.ndarray) -> None:
    exact = loss_of(ours[2], ids).item()
    away = {}
    for algorithm in ALGORITHMS:
        _, model = base_of(llama_dir, tmp_path, weight_quantize_algo=algorithm)
        away[algorithm] = abs(loss_of(model, ids).item() - exact)
    assert 0 < away["weight_only_int8"] < 0.01 and max(away.values()) < 0.2


def test_what_is_not_adapted_lets_gradients_through(llama_dir: Path, tmp_path: Path, ids: np.ndarray) -> None:
    family, model = base_of(llama_dir, tmp_path, weight_quantize_algo="nf4")
    new_adapter(model, family, LoraSettings(rank=2, alpha=4, targets=(r"blocks\.0\.attention\.q_proj",)))
    loss_of(model, ids).backward()
    (gradient,) = [values for name, values in gradients(model).items() if name.endswith("lora_B")]
    assert np.abs(gradient).max() > 0


def test_without_its_adapter_the_model_is_the_rounded_one(llama_dir: Path, tmp_path: Path, ids: np.ndarray) -> None:
    family, model = base_of(llama_dir, tmp_path, weight_quantize_algo="nf4")
    before = loss_of(model, ids).item()
    with_adapter(model, family)
    assert loss_of(model, ids).item() != before
    with adapters_off(model), paddle.no_grad():
        assert loss_of(model, ids).item() == pytest.approx(before, rel=1e-6)


def test_model_flops_count_matrices_that_are_codes(ours: Any, llama_dir: Path, tmp_path: Path) -> None:
    _, model = base_of(llama_dir, tmp_path, weight_quantize_algo="nf4")
    found, plain = (matrix_sizes(ModelPart(each), Mesh()) for each in (model, ours[2]))
    assert {name: size for name, (size, _) in found.items()} == {name: size for name, (size, _) in plain.items()}


@pytest.fixture
def gptq_dir(ours: Any, tmp_path: Path) -> Path:
    """A directory of 4-bit integers, as ``--task ptq`` writes it."""
    family, config, model = ours
    tensors, method = ModelTensors(model), RoundToNearest(GridSpec(4, -1))
    row = np.arange(12, dtype=np.int64)
    batch = collate([Sample(row, row + 1, np.ones(12, np.int32), row < 1)], config, 0)
    quantized = quantize_by_blocks(family, config, tensors, method, calibration=(), evaluation=[batch])
    packing = ModelPacking(quantized.model, quantization_config(method, quantized.model))
    stored = dict.fromkeys(tensors.shapes, "float32")
    parts = ModelParts(
        family=family, config=config, tensors=QuantizedTensors(quantized.model, stored), tokenizer=None,
        chat_template=None, source="a test", packing=packing,
    )  # fmt: skip
    write_model_directory(parts, tmp_path / "gptq", dtype="keep", max_shard_gb=5.0)
    return tmp_path / "gptq"


def test_a_directory_of_integers_is_kept_as_they_are(gptq_dir: Path, tmp_path: Path, ids: np.ndarray) -> None:
    family, model = base_of(gptq_dir, tmp_path)
    coded = [layer for _, layer in model.named_sublayers() if isinstance(layer, CodedLinear)]
    assert len(coded) == 14 and all(isinstance(layer.frozen, CodedMatrix) for layer in coded)
    floats = load_model(family, family.read_config(read_fields(gptq_dir)), gptq_dir)
    losses = []
    for each in (model, floats):
        loss = loss_of(with_adapter(each, family), ids)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, gradient in gradients(model).items():
        np.testing.assert_allclose(gradient, gradients(floats)[name], atol=1e-6, rtol=1e-4)


def test_integers_are_not_rounded_again(gptq_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"--weight_quantize_algo: nf4 cannot be done: .* is quantized already"):
        base_of(gptq_dir, tmp_path, weight_quantize_algo="nf4")


def test_merging_into_integers_is_refused_with_what_to_do(gptq_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    words = ["--task", "merge_lora", "--model_name_or_path", str(gptq_dir), "--lora_path", str(tmp_path / "adapter")]
    with pytest.raises(RefusedError, match=r"is quantized \(gptq\): nothing can be added.*Give the model that it was"):
        prepare(resolve(parse([*words, "--output_path", str(tmp_path / "merged")]))[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_quantize_algo": "fp4"}, "fp4"),
        ({"weight_blocksize": 64}, "--weight_blocksize: 64 has no effect without weight_quantize_algo"),
        ({"weight_quantize_algo": "nf4", "weight_blocksize": 63}, "--weight_blocksize: 63 is not an even number"),
        ({"weight_quantize_algo": "weight_only_int4", "weight_blocksize": 48}, "48 is not a group size of weight_only"),
        ({"weight_quantize_algo": "weight_only_int8", "weight_double_quant": "true"}, "--weight_double_quant: true"),
    ],
)  # fmt: skip
def test_what_cannot_be_rounded_is_refused(
    options: dict[str, object], said: str, llama_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=said):
        request(llama_dir, tmp_path, **options)
