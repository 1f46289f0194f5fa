from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from llm_run.core.convert.gguf_header import read_header
from llm_run.core.convert.gguf_tensors import GgufFile
from llm_run.core.errors import WeightError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small file by the gguf package's writer, with every kind of value."""
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "some")
    writer.add_uint32("some.count", 7)
    writer.add_int32("some.negative", -7)
    writer.add_uint64("some.large", 1 << 40)
    writer.add_float32("some.small", 0.5)
    writer.add_float64("some.exact", 0.1)
    writer.add_bool("some.flag", True)
    writer.add_string("some.text", "Жизнь")
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_array("some.texts", ["a", "", "b c"])
    writer.add_tensor("w", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("v", np.arange(5, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "x.gguf"


def test_all_that_the_packages_writer_wrote_is_read(file: Path) -> None:
    header = read_header(file)
    ours = {name: value for name, value in header.metadata.items() if name.startswith("some.")}
    assert ours == {
        "some.count": 7, "some.negative": -7, "some.large": 1 << 40, "some.small": 0.5, "some.exact": 0.1,
        "some.flag": True, "some.text": "Жизнь", "some.numbers": [1, 2, 3], "some.texts": ["a", "", "b c"],
    }  # fmt: skip
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {"w": (3, 4), "v": (5,)}


def test_the_header_agrees_with_the_packages_own_reader(file: Path) -> None:
    reader = gguf.GGUFReader(file)
    header = read_header(file)
    for tensor in reader.tensors:
        assert header.data_start + header.tensors[tensor.name].offset == tensor.data_offset


MAGIC = b"GGUF"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is cut short or not a GGUF file"),
        (b"x" * 100, "is not a GGUF file: it begins with b'xxxx'"),
        (MAGIC + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1 cannot be read"),
        (MAGIC + struct.pack(">IQQ", 3, 0, 0), "GGUF version 50331648 cannot be read"),
        (MAGIC + struct.pack("<IQQ", 3, 1 << 60, 0), r"1152921504606846976 items are announced, 0 bytes are left"),
        (MAGIC + struct.pack("<IQQ", 3, 0, 1 << 60), "items are announced"),
        (MAGIC + struct.pack("<IQQQ", 3, 0, 1, 1 << 63) + b"12345678", "bytes are announced, 8 are left"),
        (MAGIC + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99), "header is damaged"),
        (MAGIC + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 60), "items are announced"),
        (MAGIC + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 4, 1 << 60), "items are announced"),
        (
            MAGIC + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1),
            "an array holds items of type 9",
        ),
        (MAGIC + struct.pack("<IQQQ", 3, 0, 1, 4) + b"\xff\xff\xff\xff" + b"\0" * 8, "header is damaged"),
        (MAGIC + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQQQ", 9, 1, 1, 1), "a tensor has 9 axes"),
    ],
)
def test_a_damaged_header_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_key_that_appears_twice_is_refused(tmp_path: Path) -> None:
    entry = struct.pack("<Q", 1) + b"k" + struct.pack("<II", 4, 1)
    (tmp_path / "x.gguf").write_bytes(MAGIC + struct.pack("<IQQ", 3, 0, 2) + entry * 2)
    with pytest.raises(WeightError, match="the key k appears twice"):
        read_header(tmp_path / "x.gguf")


def test_every_truncation_is_noticed(file: Path) -> None:
    content = file.read_bytes()
    padding = 22  # after the last tensor's 10 bytes
    for length in range(0, len(content) - padding, 7):
        file.write_bytes(content[:length])
        with pytest.raises(WeightError):
            GgufFile(file)


def test_flipped_bits_end_in_an_error_or_in_readable_tensors(file: Path) -> None:
    content = file.read_bytes()
    end = read_header(file).data_start
    draw = random.Random(0)
    refused = 0
    for _ in range(300):
        flipped = bytearray(content)
        flipped[draw.randrange(end)] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        try:
            source = GgufFile(file)
            for name in source.entries:
                source.read(name)
        except WeightError:
            refused += 1
    assert refused > 100
