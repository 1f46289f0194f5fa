from __future__ import annotations

import collections
import io
import pickle

import pytest

from llm_run.core.convert import paddle_file, torch_file
from llm_run.core.convert.symbolic_pickle import Blob, Call, Global, read_description
from llm_run.core.errors import WeightError


@pytest.mark.parametrize("allowed", [torch_file.ALLOWED, paddle_file.ALLOWED])
def test_what_a_pickle_asked_for_is_named(allowed: frozenset[tuple[str, str]]) -> None:
    content = b"\x80\x02cos\nmkdir\n)R."
    with pytest.raises(WeightError, match=r"x\.bin: asks for os\.mkdir, which no weight file needs.*safetensors"):
        read_description(io.BytesIO(content), allowed, "x.bin")


def test_an_opcode_that_weight_files_do_not_need_is_named() -> None:
    with pytest.raises(WeightError, match="asks for the pickle opcode INST"):
        read_description(io.BytesIO(b"(ios\nmkdir\n."), frozenset(), "x.bin")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80", b"\x80\x02", b".", b"\x80\x02X\xff\xff\xff\xffab", b"\x80\x04\x8e" + b"\xff" * 8,
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", b"\x80\x02t.", b"\x80\x02R.", b"\x80\x02s.", b"\x80\x02h\x05.",
        b"\x80\x02e.", b"\x80\x02}}b.", b"\x80\x02}(K\x01e.", b"\x80\x02](K\x01u.", b"\x80\x02NN\x93.", b"\xff\xff.",
        b"\x80\x02K\x01K\x02.", b"\x80\x02}(X\x01\0\0\0au.", b"(\x80\x02(R.",
    ],
)  # fmt: skip
def test_a_damaged_pickle_ends_in_one_clear_error(content: bytes) -> None:
    with pytest.raises(WeightError, match=r"x\.bin: the pickle is damaged"):
        read_description(io.BytesIO(content), frozenset(), "x.bin")


def test_deep_nesting_does_not_bring_the_process_down() -> None:
    nested = b"\x80\x02)" + b"\x85" * 100_000
    read_description(io.BytesIO(nested + b"."), frozenset(), "x")
    with pytest.raises(WeightError, match="a key is not text"):
        read_description(io.BytesIO(b"\x80\x02}" + nested[2:] + b"Ns."), frozenset(), "x")
    with pytest.raises(WeightError, match="names a class by what is not text"):
        read_description(io.BytesIO(nested + b"N\x93."), frozenset(), "x")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_reads_as_pickle_reads_it(protocol: int) -> None:
    data = {"a": (1, -5, 2**40, 1.5, None, True), "b": ["x", ("y",), [], {}], "c": {"d": (1, 2, 3, 4)}}
    data["e"] = data["b"]
    assert read_description(io.BytesIO(pickle.dumps(data, protocol)), frozenset(), "x") == data


def test_a_call_is_described_and_not_made() -> None:
    content = pickle.dumps(collections.OrderedDict(a=1), 2)
    node = read_description(io.BytesIO(content), frozenset([("collections", "OrderedDict")]), "x")
    assert isinstance(node, Call)
    assert (node.function, node.arguments, node.items) == (Global("collections", "OrderedDict"), (), {"a": 1})


@pytest.mark.parametrize("size", [3, 300, 70000])
def test_bytes_are_left_in_the_file(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    content = pickle.dumps(("before", payload[:size]), 4)
    _, blob = read_description(io.BytesIO(content), frozenset(), "x")
    assert isinstance(blob, Blob)
    assert content[blob.position : blob.position + blob.stored] == payload[:size]
