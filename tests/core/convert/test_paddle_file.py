from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.convert.paddle_file import PaddleFile
from llm_run.core.convert.source import open_tensors
from llm_run.core.errors import WeightError


def _save(content: Any, directory: Path, protocol: int = 4) -> Path:
    path = directory / "model_state.pdparams"
    paddle.save(content, str(path), protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_that_paddle_saved_reads_to_the_bit(protocol: int, tmp_path: Path) -> None:
    layer = paddle.nn.Sequential(paddle.nn.Linear(3, 5), paddle.nn.LayerNorm(5))
    source = PaddleFile(_save(layer.state_dict(), tmp_path, protocol))
    assert source.layouts[0] == "paddlenlp"
    assert list(source.entries) == list(layer.state_dict())
    for name, tensor in layer.state_dict().items():
        assert source.entries[name].shape == tuple(tensor.shape)
        assert np.array_equal(source.read(name), tensor.numpy())


@pytest.mark.parametrize("protocol", [2, 4])
def test_bfloat16_is_recognised_by_its_uint16(protocol: int, tmp_path: Path) -> None:
    tensor = paddle.to_tensor(np.random.default_rng(0).normal(size=(4, 7)).astype("float32")).astype("bfloat16")
    source = PaddleFile(_save({"w": tensor}, tmp_path, protocol))
    assert source.entries["w"].dtype == "bfloat16"
    assert np.array_equal(source.read("w"), tensor.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_dtype_reads_to_the_bit(dtype: str, protocol: int, tmp_path: Path) -> None:
    array = (np.random.default_rng(0).normal(size=(70, 90)) * 100).astype(dtype)
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"w": array, "small": array[:1, :2]}, protocol))
    source = PaddleFile(path)
    assert source.entries["w"].dtype == dtype
    assert np.array_equal(source.read("w"), array) and np.array_equal(source.read("small"), array[:1, :2])


def test_column_major_arrays_keep_their_values(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    path = tmp_path / "x.pdparams"
    path.write_bytes(pickle.dumps({"w": array}, 4))
    assert np.array_equal(PaddleFile(path).read("w"), array)


def test_arrays_written_with_numpy_1_are_read(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    content = pickle.dumps({"w": array}, 2)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != content
    (tmp_path / "x.pdparams").write_bytes(old)
    assert np.array_equal(PaddleFile(tmp_path / "x.pdparams").read("w"), array)


def test_sharded_files_are_read_through_their_index(tmp_path: Path) -> None:
    for number in (1, 2):
        paddle.save({f"t{number}": np.full(2, number, "float32")}, str(tmp_path / f"model_state-{number}.pdparams"))
    weight_map = {"t1": "model_state-1.pdparams", "t2": "model_state-2.pdparams"}
    (tmp_path / "model_state.pdparams.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert np.array_equal(open_tensors(tmp_path).read("t2"), [2.0, 2.0])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = _save({"w": paddle.ones([1000])}, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightError, match=r"model_state\.pdparams: (is empty|the pickle is damaged)"):
        PaddleFile(path)


def test_an_optimizer_state_is_not_taken_for_weights(tmp_path: Path) -> None:
    layer = paddle.nn.Linear(2, 2)
    optimizer = paddle.optimizer.AdamW(paddle.optimizer.lr.NoamDecay(8, 10), parameters=layer.parameters())
    layer(paddle.ones([1, 2])).sum().backward()
    optimizer.step()
    with pytest.raises(WeightError, match="LR_Scheduler: is not an array"):
        PaddleFile(_save(optimizer.state_dict(), tmp_path))


@pytest.mark.parametrize("content", [[1], "text", 3, {}, {"StructuredToParameterName@@": {}}])
def test_what_holds_no_arrays_is_refused(content: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(WeightError, match=r"does not hold a state dict|holds no arrays"):
        PaddleFile(tmp_path / "x.pdparams")


@pytest.mark.parametrize("value", [1, "x", None, [1], {"inner": 1}])
def test_an_entry_that_is_not_an_array_is_named(value: Any, tmp_path: Path) -> None:
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps({"weird": value}, 4))
    with pytest.raises(WeightError, match="weird: is not an array"):
        PaddleFile(tmp_path / "x.pdparams")


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(2, "c8"), np.zeros(2, ">f4"), np.zeros(2, "M8[s]")])
def test_arrays_of_other_things_than_numbers_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "x.pdparams").write_bytes(pickle.dumps({"w": array}, 4))
    with pytest.raises(WeightError, match="w: its element type cannot be read"):
        PaddleFile(tmp_path / "x.pdparams")


def _with_state(state: Any, directory: Path) -> Path:
    """Write an array whose state is not what numpy would write."""

    class Array:
        def __reduce__(self) -> Any:
            return (*np.zeros(1).__reduce__()[:2], state)

    path = directory / "x.pdparams"
    path.write_bytes(pickle.dumps({"w": Array()}, 4))
    return path


FLOAT = np.dtype("f4")


@pytest.mark.parametrize(
    "state", [None, (1, (2,), FLOAT), 3, (1, (2,), FLOAT, False, "text"), (1, (2,), FLOAT, False, 5)]
)
def test_a_state_that_numpy_does_not_write_is_refused(state: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="w: the array is not described as numpy does"):
        PaddleFile(_with_state(state, tmp_path))


@pytest.mark.parametrize("shape", [(-2,), (1.0,), "ab", (1 << 63,), ((2,),), (1,) * 9])
def test_an_impossible_shape_is_refused(shape: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="w: has an impossible shape"):
        PaddleFile(_with_state((1, shape, FLOAT, False, b"12345678"), tmp_path))


@pytest.mark.parametrize("shape", [(3,), (1,), (1 << 40, 1 << 20)])
def test_data_that_does_not_fill_the_shape_is_refused(shape: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"w: float32 .* needs \d+ bytes, the file has 8"):
        PaddleFile(_with_state((1, shape, FLOAT, False, b"12345678"), tmp_path))


@pytest.mark.parametrize("text", ["\u0416" * 2, "\u0416" * 5000])
def test_text_that_stands_for_no_bytes_is_refused(text: str, tmp_path: Path) -> None:
    import _codecs

    class Encoded:
        def __reduce__(self) -> Any:
            return _codecs.encode, (text, "latin1")

    path = _with_state((1, (len(text),), np.dtype("i1"), False, Encoded()), tmp_path)
    with pytest.raises(WeightError, match=r"w: (the array is not described as numpy does|its data is text)"):
        PaddleFile(path).read("w")
