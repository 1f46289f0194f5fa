from __future__ import annotations

import errno
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.errors import CheckpointError
from llm_run.core.trainer import manifest
from llm_run.core.trainer.checkpoint import CheckpointStore, Snapshot, TrainerState, read_checkpoint, write_checkpoint
from llm_run.core.trainer.storage import Storage


def snapshot(step: int, *, size: int = 40) -> Snapshot:
    draw = np.random.default_rng(step)
    weights = {"embed.weight": draw.normal(size=(size, 3)).astype(np.float32), "norm.weight": np.ones(3, np.float32)}
    moments = {f"exp_avg.{name}": array * 0.5 for name, array in weights.items()}
    return Snapshot(
        state=TrainerState(step=step, samples=8 * step, tokens=100 * step, updates=step - 1, skipped_in_row=1),
        identity={"seed": 3, "data": "abc"}, model=weights, optimizer=moments, about={"versions": {"python": "3"}},
    )  # fmt: skip


def same(arrays: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    return arrays.keys() == others.keys() and all(a.tobytes() == others[n].tobytes() for n, a in arrays.items())


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    saved = snapshot(5)
    path = CheckpointStore(tmp_path).save(saved)
    found = read_checkpoint(path)
    assert path.name == "checkpoint-5"
    assert found.state == saved.state
    assert found.identity == saved.identity
    assert same(saved.model, found.tensors_of("model"))
    assert same(saved.optimizer, found.tensors_of("optimizer"))


def test_a_checkpoint_is_safetensors_and_json_and_safetensors_reads_it(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = CheckpointStore(tmp_path).save(snapshot(1))
    assert sorted(file.name for file in path.iterdir()) == [
        "MANIFEST.json", "index.json", "model-00000.safetensors", "optimizer-00000.safetensors", "trainer.json",
    ]  # fmt: skip
    arrays = load_file(path / "model-00000.safetensors")
    assert same({f"model/{name}": array for name, array in snapshot(1).model.items()}, arrays)


def test_a_tensor_is_put_together_from_slices_in_several_files(tmp_path: Path) -> None:
    """As ranks of a sharded run will write them."""
    from llm_run.core.trainer.tensor_files import IndexEntry, StoredSlice, TensorReader, write_tensors

    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    for number, columns in enumerate((slice(0, 2), slice(2, 6))):
        write_tensors(Storage(), tmp_path / f"{number}.safetensors", {"w": whole[:, columns]})
    slices = (StoredSlice("0.safetensors", (0, 0), (4, 2)), StoredSlice("1.safetensors", (0, 2), (4, 4)))
    reader = TensorReader(tmp_path, {"w": IndexEntry((4, 6), "float32", slices)})
    np.testing.assert_array_equal(reader.read("w"), whole)
    short = TensorReader(tmp_path, {"w": IndexEntry((4, 6), "float32", slices[:1])})
    with pytest.raises(CheckpointError, match="tensor w: slices cover 8 of 24 values"):
        short.read("w")


def test_each_of_200_flipped_bits_is_detected(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(snapshot(1))
    draw = np.random.default_rng(0)
    files = sorted(path.iterdir())
    sizes = np.array([8 * file.stat().st_size for file in files])
    for number in range(200):
        # Every file gets its share, the small ones too.
        file_number = number % len(files) if number < 100 else int(draw.choice(len(files), p=sizes / sizes.sum()))
        bit = int(draw.integers(sizes[file_number]))
        flip_bit(files[file_number], bit)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        flip_bit(files[file_number], bit)
    read_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["model-00000.safetensors", "optimizer-00000.safetensors", "index.json", "trainer.json"]
)
def test_truncated_missing_empty_and_swapped_files_are_named(tmp_path: Path, name: str) -> None:
    def fresh() -> Path:
        shutil.rmtree(tmp_path / "checkpoint-1", ignore_errors=True)
        return CheckpointStore(tmp_path).save(snapshot(1))

    path = fresh()
    size = (path / name).stat().st_size
    (path / name).write_bytes((path / name).read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=f"{name}: has {size - 3} bytes, {size} were written"):
        read_checkpoint(path)
    path = fresh()
    (path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"{name}: has 0 bytes"):
        read_checkpoint(path)
    path = fresh()
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: is missing"):
        read_checkpoint(path)
    path = fresh()
    other = CheckpointStore(tmp_path).save(snapshot(2))
    shutil.copy(other / name, path / name)
    if (path / name).read_bytes() != (fresh() / name).read_bytes():
        shutil.copy(other / name, path / name)
        with pytest.raises(CheckpointError, match=f"{name}: "):
            read_checkpoint(path)


def test_foreign_files_and_another_steps_name_are_refused(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(snapshot(1))
    (path / "extra.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"extra\.bin: is not in MANIFEST\.json"):
        read_checkpoint(path)
    (path / "extra.bin").unlink()
    path.rename(tmp_path / "checkpoint-9")
    with pytest.raises(CheckpointError, match="checkpoint-9: holds step 1, not the one its name says"):
        read_checkpoint(tmp_path / "checkpoint-9")


def test_a_folder_without_manifest_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint-1: has no MANIFEST\.json"):
        read_checkpoint(tmp_path / "checkpoint-1")


def test_the_newest_valid_one_is_found_and_damaged_ones_are_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    for step in (2, 4, 10):
        store.save(snapshot(step))
    flip_bit(tmp_path / "checkpoint-10" / "model-00000.safetensors", 999)
    (tmp_path / "checkpoint-4" / "MANIFEST.json").unlink()
    with caplog.at_level(logging.WARNING, "llm_run.trainer"):
        found = store.newest()
    assert found is not None and found.state.step == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-10.corrupt", "checkpoint-2", "checkpoint-4.corrupt"]
    assert "model-00000.safetensors: is damaged (SHA-256 differs from MANIFEST.json)" in caplog.messages[0]
    assert "Renamed to checkpoint-10.corrupt; trying the one before" in caplog.messages[0]
    assert "checkpoint-4: has no MANIFEST.json" in caplog.messages[1]


def test_damaged_checkpoints_only_are_an_error_now_and_at_the_next_start(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.newest() is None
    store.save(snapshot(1))
    flip_bit(tmp_path / "checkpoint-1" / "index.json", 5)
    for _start in range(2):
        with pytest.raises(CheckpointError, match=r"holds damaged checkpoints only \(checkpoint-1\.corrupt\)"):
            store.newest()
    store.discard_all()
    assert store.newest() is None
    assert not list(tmp_path.iterdir())


def test_a_limit_keeps_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3, 4):
        store.save(snapshot(step), limit=2)
    assert store.steps() == [4, 3]


def test_a_limit_never_deletes_the_last_one_that_reads_back(tmp_path: Path) -> None:
    """The disk loses what is written to it from step 2 on."""

    class Losing(Storage):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            if target.name.startswith("checkpoint-"):
                flip_bit(target / "model-00000.safetensors", 800)

    CheckpointStore(tmp_path).save(snapshot(1), limit=1)
    store = CheckpointStore(tmp_path, Losing())
    for step in (2, 3, 4):
        store.save(snapshot(step), limit=1)
    found = CheckpointStore(tmp_path).newest()
    assert found is not None and found.state.step == 1


def test_a_save_that_fails_leaves_nothing_and_costs_no_old_one(tmp_path: Path) -> None:
    class Full(Storage):
        left = 2

        def write_chunk(self, descriptor: int, chunk: memoryview) -> None:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write_chunk(descriptor, chunk)

    CheckpointStore(tmp_path).save(snapshot(1))
    with pytest.raises(OSError, match="No space left"):
        CheckpointStore(tmp_path, Full()).save(snapshot(2), limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    read_checkpoint(tmp_path / "checkpoint-1")


def test_free_space_is_looked_at_before_anything_is_written(tmp_path: Path) -> None:
    class Small(Storage):
        def free_bytes(self, path: Path) -> int:
            return 1000

        def make_directory(self, path: Path) -> None:
            raise AssertionError("nothing may be written")

    saved = snapshot(1, size=100_000)
    with pytest.raises(OSError, match=r"0\.0 MB are free, 2\.9 MB are needed"):
        write_checkpoint(Small(), tmp_path / "checkpoint-1", saved)


def test_left_overs_of_ours_are_cleaned_and_nothing_else(tmp_path: Path) -> None:
    ours = [".checkpoint-3.tmp-" + "0a" * 16, ".trash-" + "1b" * 16, ".rehearsal.tmp-" + "2c" * 16]
    theirs = [".checkpoint-3.tmp-mine", ".trash-1", "checkpoint-3.tmp-" + "0a" * 16, ".git", "notes"]
    for name in ours + theirs:
        (tmp_path / name).mkdir()
    CheckpointStore(tmp_path).clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


def test_a_kill_at_any_operation_of_a_save_costs_at_most_the_new_checkpoint(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("crash_points.py")
    done = subprocess.run([sys.executable, str(driver), str(tmp_path)], capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    died = [result for result in results if result["died"]]
    # Five files and their directory, three renames' worth of commit and retention, before, half-way and after each.
    assert len(died) >= 60
    assert len(results) - len(died) == 3
    for result in results:
        assert result["same"], result
        assert result["step"] in (2, 3), result
        allowed = [["checkpoint-1", "checkpoint-2"], ["checkpoint-1", "checkpoint-2", "checkpoint-3"],
                   ["checkpoint-2", "checkpoint-3"]]  # fmt: skip
        assert result["names"] in allowed, result
    assert any(result["leftovers"] for result in died)


def test_a_file_that_the_disk_cannot_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CheckpointStore(tmp_path).save(snapshot(1))
    path = CheckpointStore(tmp_path).save(snapshot(2))
    plain = manifest._file_hash

    def fail(file: Path) -> str:
        if file.parent == path:
            raise OSError(errno.EIO, "Input/output error", str(file))
        return plain(file)

    monkeypatch.setattr(manifest, "_file_hash", fail)
    with pytest.raises(CheckpointError, match=r"checkpoint-2/.*: cannot be read \(Input/output error\)"):
        read_checkpoint(path)
    found = CheckpointStore(tmp_path).newest()
    assert found is not None and found.state.step == 1


def test_empty_and_scalar_tensors_come_back(tmp_path: Path) -> None:
    odd = {"none": np.zeros((3, 0), np.float32), "one": np.array(2.5, np.float32), "flag": np.array([True, False])}
    saved = Snapshot(state=TrainerState(step=1), identity={}, model=odd, optimizer={}, about={})
    found = read_checkpoint(CheckpointStore(tmp_path).save(saved)).tensors_of("model")
    for name, array in odd.items():
        assert (found[name].shape, found[name].dtype, found[name].tobytes()) == (
            array.shape,
            array.dtype,
            array.tobytes(),
        )
