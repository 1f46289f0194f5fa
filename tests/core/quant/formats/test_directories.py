"""Directories that are written here, read by what nobody here wrote: plain bit arithmetic, and transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_run.core.convert.load import load_model
from llm_run.core.quant.gptq import GptqSettings
from llm_run.core.quant.grid import GridSpec
from llm_run.core.quant.methods import Awq, Gptq, Method, RoundToNearest
from llm_run.core.quant.quantize import Quantized
from llm_run.core.quant.w8a8 import W8A8, Shift, Smooth
from llm_run.core.registry.family import Family

IDS = np.random.default_rng(5).integers(3, 250, [2, 20])


def bits_of(word: np.integer[Any], place: int, bits: int) -> int:
    return (int(np.int64(word)) >> (bits * place)) & ((1 << bits) - 1)


def unpack_gptq(tensors: dict[str, np.ndarray], prefix: str, bits: int) -> np.ndarray:
    """The published layout, element by element: the matrix [out, in]."""
    words, zeros, scales, groups = (tensors[f"{prefix}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx"))
    per_word = 32 // bits
    matrix = np.empty((scales.shape[1], len(groups)), dtype=np.float32)
    for column, group in enumerate(groups):
        for row in range(matrix.shape[0]):
            code = bits_of(words[column // per_word, row], column % per_word, bits)
            zero = bits_of(zeros[group, row // per_word], row % per_word, bits) + 1
            matrix[row, column] = (code - zero) * np.float32(scales[group, row])
    return matrix


def unpack_awq(tensors: dict[str, np.ndarray], prefix: str, group_size: int) -> np.ndarray:
    """The published layout, element by element: the matrix [out, in]."""
    words, zeros, scales = (tensors[f"{prefix}.{part}"] for part in ("qweight", "qzeros", "scales"))
    place_of = {0: 0, 1: 4, 2: 1, 3: 5, 4: 2, 5: 6, 6: 3, 7: 7}
    matrix = np.empty((scales.shape[1], words.shape[0]), dtype=np.float32)
    for column in range(words.shape[0]):
        group = 0 if group_size == -1 else column // group_size
        for row in range(matrix.shape[0]):
            code = bits_of(words[column, row // 8], place_of[row % 8], 4)
            zero = bits_of(zeros[group, row // 8], place_of[row % 8], 4)
            matrix[row, column] = (code - zero) * np.float32(scales[group, row])
    return matrix


def peer_logits(directory: Path, matrices: dict[str, np.ndarray]) -> np.ndarray:
    """What transformers computes with the matrices, and with the other tensors of the directory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = json.loads((directory / "config.json").read_text())
    del fields["quantization_config"]
    (directory / "config.json").write_text(json.dumps(fields))
    peer = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory)).eval()
    floats = {name: array for name, array in load_file(directory / "model.safetensors").items() if array.ndim < 3}
    state = {name: torch.tensor(floats.get(name, matrices.get(name))) for name in peer.state_dict()}
    peer.load_state_dict(state)
    with torch.no_grad():
        return np.asarray(peer(torch.tensor(IDS)).logits.numpy())


@pytest.mark.parametrize(
    "method",
    [
        Gptq(GridSpec(4, 16), GptqSettings()),
        Gptq(GridSpec(8), GptqSettings(act_order=False)),
        RoundToNearest(GridSpec(4)),
    ],
    ids=["gptq4", "gptq8", "nearest4"],
)
def test_gptq_tensors_are_what_their_published_layout_says(
    quantize: Callable[[Method], Quantized],
    write: Callable[[Quantized, Method], Path],
    logits: Any,
    method: Any,
) -> None:
    quantized = quantize(method)
    directory = write(quantized, method)
    fields = json.loads((directory / "config.json").read_text())["quantization_config"]
    assert fields["quant_method"] == "gptq" and fields["bits"] == method.spec.bits and fields["sym"]
    tensors = load_file(directory / "model.safetensors")
    prefixes = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    assert len(prefixes) == 7 * quantized.model.config.num_layers
    matrices = {f"{prefix}.weight": unpack_gptq(tensors, prefix, method.spec.bits) for prefix in prefixes}
    found = peer_logits(directory, matrices)
    assert np.abs(found - logits(quantized.model, IDS)).max() < 1e-4


def test_awq_tensors_are_what_their_published_layout_says(
    quantize: Callable[[Method], Quantized], write: Callable[[Quantized, Method], Path], logits: Any
) -> None:
    method = Awq(GridSpec(4, 16, symmetric=False))
    quantized = quantize(method)
    directory = write(quantized, method)
    fields = json.loads((directory / "config.json").read_text())["quantization_config"]
    assert (fields["quant_method"], fields["version"], fields["group_size"]) == ("awq", "gemm", 16)
    tensors = load_file(directory / "model.safetensors")
    prefixes = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    matrices = {f"{prefix}.weight": unpack_awq(tensors, prefix, 16) for prefix in prefixes}
    found = peer_logits(directory, matrices)
    assert np.abs(found - logits(quantized.model, IDS)).max() < 1e-4


@pytest.fixture
def even_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let compressed-tensors use as many codes below 0 as above, as W8A8 is published: it has one more, -128, and
    divides a token by its maximum / 127.5. All else of it stays."""
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    import torch

    for module in (helpers, forward):
        monkeypatch.setattr(
            module, "calculate_range", lambda args, device: tuple(torch.tensor([-127.0, 127.0], device=device))
        )


@pytest.mark.usefixtures("even_range")
@pytest.mark.parametrize("per_token", [False, True])
def test_transformers_runs_a_w8a8_directory(
    llama: Family,
    quantize: Callable[[Method], Quantized],
    write: Callable[[Quantized, Method], Path],
    logits: Any,
    per_token: bool,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    method = W8A8(smooth=Smooth(all_linears=True), per_token=per_token)
    quantized = quantize(method)
    directory = write(quantized, method)
    peer = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = peer(torch.tensor(IDS)).logits.numpy()
    # What rounding of the activations does: the same integers, multiplied by inputs as they are.
    floats = logits(load_model(llama, quantized.model.config, directory), IDS)
    ours = logits(quantized.model, IDS)
    effect, their_effect, difference = (float(np.std(x)) for x in (ours - floats, theirs - floats, theirs - ours))
    print(f"rounding inputs {effect:.4f}, in transformers {their_effect:.4f}, which differs by {difference:.4f}")
    # A few inputs lie so near to the middle between two codes that floats of another order round them otherwise.
    # Errors that have nothing to do with each other would differ by 1.4 times their size.
    assert 0 < effect and difference < 0.05 * effect


def test_a_directory_with_adjusted_inputs_is_not_offered_to_others(
    quantize: Callable[[Method], Quantized], write: Callable[[Quantized, Method], Path]
) -> None:
    method = W8A8(shift=Shift(), smooth=Smooth())
    directory = write(quantize(method), method)
    fields = json.loads((directory / "config.json").read_text())["quantization_config"]
    assert fields["quant_method"] == "llm-run"  # transformers knows no such method, and refuses it
