from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llm_run.core.convert.safetensors_file import SafetensorsFile
from llm_run.core.errors import WeightError

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([[1.5, 3.140625]], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}


def _raw(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _described(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_what_the_formats_own_library_wrote_is_read_to_the_bit(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    source = SafetensorsFile(tmp_path / "x.safetensors")
    assert source.layouts == ("hf", "paddlenlp")
    assert {name: entry.shape for name, entry in source.entries.items()} == {
        name: tuple(tensor.shape) for name, tensor in TENSORS.items()
    }
    for name, tensor in TENSORS.items():
        bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
        read = source.read(name)
        assert np.array_equal(read.view(np.int16) if tensor.dtype == torch.bfloat16 else read, bits.numpy())
    assert source.entries["brain"].dtype == "bfloat16"


def test_a_file_marked_by_paddlenlp_is_first_taken_for_its_layout(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"format": "np"})
    assert SafetensorsFile(tmp_path / "x.safetensors").layouts == ("paddlenlp", "hf")


DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cut short or not a safetensors file"),
    "text": (b"<html>404</html>", "cut short or not a safetensors file"),
    "header length of 2^63": ((1 << 63).to_bytes(8, "little") + b"{}", "cut short or not a safetensors file"),
    "no JSON": (_raw(b"{", b""), "header is damaged"),
    "deep JSON": (_raw(b"[" * 200000, b""), "header is damaged"),
    "a list": (_raw(b"[]", b""), "header is damaged: not an object"),
    "twins": (_raw(b'{"a": 1, "a": 2}', b""), "a key appears twice"),
    "tensor without fields": (_raw({"a": 3}, b""), "a: shape None and offsets None"),
    "negative shape": (_raw({"a": _described([-1], 0, 4)}, b"1234"), r"a: shape \[-1\]"),
    "fractional shape": (_raw({"a": _described([1.0], 0, 4)}, b"1234"), r"a: shape \[1.0\]"),
    "true as shape": (_raw({"a": _described([True], 0, 4)}, b"1234"), r"a: shape \[True\]"),
    "three offsets": (_raw({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b"1234"), "a: shape"),
    "unknown dtype": (_raw({"a": _described([1], 0, 4, "F4")}, b"1234"), "a: dtype F4 cannot be read"),
    "wrong size": (_raw({"a": _described([2], 0, 4)}, b"1234"), r"a: F32 \[2\] needs 8 bytes"),
    "huge shape": (_raw({"a": _described([1 << 40, 1 << 40], 0, 4)}, b"1234"), "a: F32 .* needs"),
    "seventeen axes": (_raw({"a": _described([1] * 17, 0, 4)}, b"1234"), "a: shape .* are not lists of sizes"),
    "absurd size": (_raw({"a": _described([10**4000], 0, 4)}, b"1234"), "a: shape .* are not lists of sizes"),
    "backwards": (_raw({"a": _described([1], 4, 0)}, b"1234"), "a: F32"),
    "overlap": (
        _raw({"a": _described([1], 0, 4), "b": _described([1], 2, 6)}, b"123456"),
        "b: at offset 2 it overlaps",
    ),
    "gap": (
        _raw({"a": _described([1], 0, 4), "b": _described([1], 8, 12)}, b"1" * 12),
        "b: at offset 8 it leaves a gap",
    ),
    "late start": (_raw({"a": _described([1], 4, 8)}, b"1" * 8), "a: at offset 4 it leaves a gap"),
    "cut short": (_raw({"a": _described([2], 0, 8)}, b"1234"), "is cut short: the header describes 8 bytes"),
    "bytes left": (_raw({"a": _described([1], 0, 4)}, b"123456"), "bytes that belong to no tensor"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_by_name(what: str, tmp_path: Path) -> None:
    content, message = DAMAGED[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightError, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def _flip(content: bytes, position: int, mask: int) -> bytes:
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def _cut(content: bytes, position: int, _: int) -> bytes:
    return content[:position]


@pytest.mark.parametrize("harm", [_flip, _cut])
def test_two_hundred_mutated_headers_end_in_an_error_or_in_readable_tensors(
    harm: Callable[[bytes, int, int], bytes], tmp_path: Path
) -> None:
    save_file(TENSORS, tmp_path / "good.safetensors")
    content = (tmp_path / "good.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for number in range(200):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(harm(content, draw.randrange(header), 1 << draw.randrange(8)))
        try:
            source = SafetensorsFile(path)
            for name in source.entries:
                source.read(name)
        except WeightError:
            refused += 1
    # A flipped bit in a name or in the metadata leaves a valid file; every cut must be noticed.
    assert refused >= (200 if harm is _cut else 100)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
