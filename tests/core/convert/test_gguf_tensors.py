from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from llm_run.core.convert import gguf_tensors
from llm_run.core.convert.gguf_tensors import GgufFile
from llm_run.core.errors import WeightError

ROWS, COLUMNS = 6, 512
VALUES = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)


def _write(directory: Path, tensors: dict[str, tuple[np.ndarray, Kind | None]]) -> Path:
    writer = gguf.GGUFWriter(directory / "x.gguf", "some")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return directory / "x.gguf"


def _q4_0(raw: np.ndarray) -> np.ndarray:
    """Expand blocks of 32: a float16 scale, then 4-bit numbers, low halves first, centred on 8."""
    blocks = raw.reshape(-1, 18)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    bits = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    return scale * (bits - 8)


def _q4_1(raw: np.ndarray) -> np.ndarray:
    """As q4_0, with a float16 minimum in place of the centre."""
    blocks = raw.reshape(-1, 20)
    scale, least = (blocks[:, start : start + 2].copy().view(np.float16).astype(np.float32) for start in (0, 2))
    bits = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    return scale * bits + least


def _q8_0(raw: np.ndarray) -> np.ndarray:
    """Expand blocks of 32: a float16 scale, then signed bytes."""
    blocks = raw.reshape(-1, 34)
    return blocks[:, :2].copy().view(np.float16).astype(np.float32) * blocks[:, 2:].view(np.int8).astype(np.float32)


@pytest.mark.parametrize(("kind", "formula"), [(Kind.Q4_0, _q4_0), (Kind.Q4_1, _q4_1), (Kind.Q8_0, _q8_0)])
def test_quantized_blocks_expand_by_their_formula(kind: Kind, formula: object, tmp_path: Path) -> None:
    raw = gguf.quants.quantize(VALUES, kind)
    source = GgufFile(_write(tmp_path, {"w": (raw, kind)}))
    entry = source.entries["w"]
    assert (entry.shape, entry.dtype, entry.storage) == ((ROWS, COLUMNS), "float32", kind.name)
    assert callable(formula)
    assert np.array_equal(source.read("w"), formula(raw).reshape(ROWS, COLUMNS))


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q5_0, Kind.Q5_1])
def test_expanding_in_chunks_changes_nothing(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(1).integers(0, 60, (ROWS, COLUMNS // block * size)).astype(np.uint8)
    source = GgufFile(_write(tmp_path, {"w": (raw, kind)}))
    monkeypatch.setattr(gguf_tensors, "_CHUNK", 4 * 256)
    assert np.array_equal(source.read("w"), gguf.quants.dequantize(raw, kind))


def test_plain_types_read_to_the_bit(tmp_path: Path) -> None:
    brain = gguf.quants.quantize(VALUES, Kind.BF16)
    tensors = {"f32": (VALUES, None), "f16": (VALUES.astype(np.float16), None), "bf16": (brain, Kind.BF16)}
    source = GgufFile(_write(tmp_path, tensors))
    assert {name: entry.dtype for name, entry in source.entries.items()} == {
        "f32": "float32", "f16": "float16", "bf16": "bfloat16",
    }  # fmt: skip
    assert np.array_equal(source.read("f32"), VALUES)
    assert np.array_equal(source.read("f16"), VALUES.astype(np.float16))
    assert np.array_equal(source.read("bf16"), brain.view(np.uint16).reshape(ROWS, COLUMNS))


def test_tensors_may_have_three_axes(tmp_path: Path) -> None:
    cube = VALUES.reshape(2, 3, COLUMNS)
    raw = gguf.quants.quantize(cube, Kind.Q8_0)
    source = GgufFile(_write(tmp_path, {"w": (raw, Kind.Q8_0)}))
    assert np.array_equal(source.read("w"), gguf.quants.dequantize(raw, Kind.Q8_0))


def _patch(path: Path, name: str, field: int, value: int, width: int = 8) -> None:
    """Overwrite a number in a tensor's row: at ``field`` bytes after its name."""
    content = bytearray(path.read_bytes())
    row = content.index(len(name).to_bytes(8, "little") + name.encode()) + 8 + len(name) + field
    content[row : row + width] = value.to_bytes(width, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("field", "value", "width", "message"),
    [
        (20, 999, 4, "weight_a: has the unknown type 999"),
        (20, 4, 4, "weight_a: has the unknown type 4"),
        (4, 1 << 40, 8, r"weight_a: ends at byte \d+ of the data"),
        (4, 0, 8, r"weight_a: shape \[6, 0\] is impossible for F32"),
        (24, 1 << 40, 8, "weight_a: ends at byte .* the file is cut short"),
        (24, 64, 8, "weight_b: overlaps weight_a|weight_a: overlaps weight_b"),
    ],
)
def test_a_damaged_row_of_the_table_names_its_tensor(
    field: int, value: int, width: int, message: str, tmp_path: Path
) -> None:
    path = _write(tmp_path, {"weight_a": (VALUES, None), "weight_b": (VALUES, None)})
    _patch(path, "weight_a", field, value, width)
    with pytest.raises(WeightError, match=message):
        GgufFile(path)


def test_rows_that_do_not_fill_blocks_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, {"weight_a": (gguf.quants.quantize(VALUES, Kind.Q8_0), Kind.Q8_0)})
    _patch(path, "weight_a", 4, COLUMNS - 16)
    with pytest.raises(WeightError, match=r"weight_a: shape \[6, 496\] is impossible for Q8_0"):
        GgufFile(path)


def test_without_the_package_the_way_to_install_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, {"w": (VALUES, None)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(WeightError, match=r'Run: pip install "llm-run\[gguf\]"'):
        GgufFile(path)


def test_one_part_of_several_says_how_to_join_them(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x-00001-of-00003.gguf", "some")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("w", VALUES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightError, match=r"is one of 3 parts\. Join them with llama-gguf-split --merge"):
        GgufFile(tmp_path / "x-00001-of-00003.gguf")
