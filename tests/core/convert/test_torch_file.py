from __future__ import annotations

import collections
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_run.core.convert.source import open_tensors
from llm_run.core.convert.torch_file import TorchFile
from llm_run.core.errors import WeightError


def _save(content: Any, directory: Path, **options: Any) -> Path:
    path = directory / "pytorch_model.bin"
    torch.save(content, path, **options)
    return path


def _rewrite(path: Path, change: dict[str, bytes | None], *, compress: int = zipfile.ZIP_STORED) -> Path:
    """Replace or drop members of the archive, by the end of their name."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in members.items():
            key = next((key for key in change if name.endswith(key)), None)
            new = content if key is None else change[key]
            if new is not None:
                archive.writestr(name, new)
    return path


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_of_torch_reads_to_the_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = (torch.randn(3, 5) * 10).to(dtype)
    source = TorchFile(_save({"w": tensor}, tmp_path))
    bits = tensor.view(torch.int16).numpy().view(np.uint16) if dtype == torch.bfloat16 else tensor.numpy()
    assert source.entries["w"].dtype == str(dtype).removeprefix("torch.")
    assert np.array_equal(source.read("w"), bits)


def test_views_of_one_storage_read_as_torch_sees_them(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    views = {
        "whole": base, "offset": base[5:9], "matrix": base.reshape(4, 6), "transposed": base.reshape(4, 6).t(),
        "strided": base[::3], "expanded": base[:2].unsqueeze(1).expand(2, 3), "scalar": base[7],
        "parameter": torch.nn.Parameter(base[:3]), "empty": base[:0],
    }  # fmt: skip
    source = TorchFile(_save(views, tmp_path))
    for name, view in views.items():
        assert np.array_equal(source.read(name), view.detach().numpy()), name


def test_a_state_dict_of_a_module_is_read_with_its_metadata_left_out(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    source = TorchFile(_save(module.state_dict(), tmp_path))
    assert list(source.entries) == list(module.state_dict())
    assert np.array_equal(source.read("0.weight"), module[0].weight.detach().numpy())


def test_sharded_files_are_read_through_their_index(tmp_path: Path) -> None:
    for number in (1, 2):
        torch.save({f"t{number}": torch.full((2,), float(number))}, tmp_path / f"pytorch_model-{number}.bin")
    weight_map = {"t1": "pytorch_model-1.bin", "t2": "pytorch_model-2.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert np.array_equal(open_tensors(tmp_path).read("t2"), [2.0, 2.0])


def test_a_file_from_before_torch_1_6_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = _save({"w": torch.zeros(2)}, tmp_path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightError, match=r"pytorch_model\.bin: is no zip archive.*Re-save it as safetensors"):
        TorchFile(path)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        TorchFile(_save(torch.nn.Linear(1, 1), tmp_path))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, "text", 3])
def test_what_is_not_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="does not hold a state dict"):
        TorchFile(_save(content, tmp_path))


@pytest.mark.parametrize(
    "value", [1, "x", None, {"inner": torch.zeros(1)}, [torch.zeros(1)], collections.OrderedDict()]
)
def test_an_entry_that_is_not_a_tensor_is_named(value: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="weird: is not a tensor"):
        TorchFile(_save({"fine": torch.zeros(1), "weird": value}, tmp_path))


def test_a_flipped_bit_in_the_data_is_noticed(tmp_path: Path) -> None:
    path = _save({"w": torch.arange(1000.0)}, tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(500).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightError, match="w: the bytes are damaged"):
        TorchFile(path).read("w")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    path = _save({"w": torch.arange(1000.0)}, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightError, match=r"pytorch_model\.bin: is no zip archive: damaged"):
        TorchFile(path)


def test_a_missing_storage_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="w: its storage '0' is missing"):
        TorchFile(_rewrite(_save({"w": torch.zeros(4)}, tmp_path), {"data/0": None}))


def test_a_short_storage_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"w: shape \[4\] reaches outside its storage"):
        TorchFile(_rewrite(_save({"w": torch.zeros(4)}, tmp_path), {"data/0": b"\0" * 15}))


def test_a_compressed_storage_is_refused(tmp_path: Path) -> None:
    path = _rewrite(_save({"w": torch.zeros(1 << 20)}, tmp_path), {}, compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightError, match="w: its storage is compressed"):
        TorchFile(path)


def test_another_zip_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(WeightError, match=r"is a zip archive, but not torch's: it holds 0 data\.pkl"):
        TorchFile(tmp_path / "x.bin")


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="big-endian"):
        TorchFile(_rewrite(_save({"w": torch.zeros(4)}, tmp_path), {"byteorder": b"big"}))


class _Storage:
    """Pickles as a reference to a storage, through ``persistent_id``."""


def _crafted(path: Path, offset: Any, shape: Any, stride: Any, *, key: Any = None) -> Path:
    """Write an archive whose one tensor has the given description."""
    import io

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            if not isinstance(thing, _Storage):
                return None
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if key is None else key

    class Rebuilt:
        def __reduce__(self) -> Any:
            call = (_Storage(), offset, shape, stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, call

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"w": Rebuilt()})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", stream.getvalue())
        archive.writestr("a/data/0", np.arange(4, dtype=np.float32).tobytes())
    return path


def test_a_crafted_but_sound_description_reads(tmp_path: Path) -> None:
    source = TorchFile(_crafted(tmp_path / "x.bin", 1, (2,), (2,)))
    assert np.array_equal(source.read("w"), [1.0, 3.0])


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, (5,), (1,)), (4, (1,), (1,)), (0, (2, 2), (3, 1)), (1 << 61, (1,), (1,)), (3, (2,), (1,))],
)
def test_a_view_outside_its_storage_is_refused(offset: Any, shape: Any, stride: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"w: shape .* reaches outside its storage"):
        TorchFile(_crafted(tmp_path / "x.bin", offset, shape, stride))


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(-1, (1,), (1,)), (0, (-1,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,)), (0.0, (1,), (1,)), (0, [1], [1]),
     (1 << 62, (1,), (1,)), (0, ((1,),), (1,)), (0, (1 << 40, 1 << 40), (0, 0)), (0, (1,) * 9, (1,) * 9)],
)  # fmt: skip
def test_an_impossible_view_is_refused(offset: Any, shape: Any, stride: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="w: has an impossible shape, stride or offset"):
        TorchFile(_crafted(tmp_path / "x.bin", offset, shape, stride))


@pytest.mark.parametrize("key", ["text", ("storage",), ("storage", "float", "0", "cpu", 4), (1, 2, 3, 4, 5)])
def test_a_reference_that_is_no_storage_is_refused(key: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="w: does not say where its data lies"):
        TorchFile(_crafted(tmp_path / "x.bin", 0, (1,), (1,), key=key))


def test_a_storage_named_like_another_file_is_not_looked_for_outside_the_archive(tmp_path: Path) -> None:
    key = ("storage", torch.FloatStorage, "../../../etc/hostname", "cpu", 4)
    with pytest.raises(WeightError, match=r"w: its storage '\.\./\.\./\.\./etc/hostname' is missing"):
        TorchFile(_crafted(tmp_path / "x.bin", 0, (1,), (1,), key=key))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = _save({"w": torch.zeros(4)}, tmp_path)
    content = bytearray(path.read_bytes())
    start = 0
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        content[start + 8] |= 1  # the flag in each entry of the central directory
        start += 4
    path.write_bytes(content)
    with pytest.raises(WeightError, match=r"is no zip archive: damaged.*encrypted"):
        TorchFile(path)
