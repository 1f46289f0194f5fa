from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from llm_run.core.convert.rank_files import find_rank_files, open_rank_files
from llm_run.core.errors import WeightError


def write(folder: Path, *ranks: str) -> Path:
    """Write a file for each rank, with a tensor of the rank's own name."""
    for rank in ranks:
        (folder / f"model_state.{rank}.pdparams").write_bytes(pickle.dumps({rank: np.ones(3, np.float32)}, protocol=4))
    return folder


@pytest.mark.parametrize(
    ("names", "ranks"),
    [
        (["tp00", "tp01"], [(0, 0), (1, 0)]),
        (["pp00", "pp01"], [(0, 0), (0, 1)]),
        (["tp00_pp00", "tp00_pp01", "tp01_pp00", "tp01_pp01"], [(0, 0), (0, 1), (1, 0), (1, 1)]),
    ],
)
def test_names_say_the_ranks(names: list[str], ranks: list[tuple[int, int]], tmp_path: Path) -> None:
    assert sorted(find_rank_files(write(tmp_path, *names))) == ranks


def test_stages_of_a_rank_are_read_as_one(tmp_path: Path) -> None:
    sources = open_rank_files(write(tmp_path, "tp00_pp00", "tp00_pp01", "tp01_pp00", "tp01_pp01"), {})
    assert [sorted(source.entries) for source in sources] == [["tp00_pp00", "tp00_pp01"], ["tp01_pp00", "tp01_pp01"]]
    assert [source.path.name for source in sources] == [f"model_state.tp0{rank}_pp*.pdparams" for rank in (0, 1)]
    assert np.array_equal(sources[1].read("tp01_pp00"), np.ones(3))


def test_files_that_the_configuration_promises_must_be_there(tmp_path: Path) -> None:
    folder = write(tmp_path, "tp00_pp00", "tp01_pp00")
    fields = {"tensor_parallel_degree": 2, "pipeline_parallel_degree": 2}
    said = r"model_state\.tp00_pp01\.pdparams, model_state\.tp01_pp01\.pdparams are missing, of 2 tensor-parallel ranks"
    with pytest.raises(WeightError, match=said):
        open_rank_files(folder, fields)
    assert len(open_rank_files(folder, {"tensor_parallel_degree": 2, "pipeline_parallel_degree": -1})) == 2


def test_ranks_in_between_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"model_state\.tp01\.pdparams is missing, of 3 tensor-parallel ranks and 1"):
        open_rank_files(write(tmp_path, "tp00", "tp02"), {})


@pytest.mark.parametrize("name", ["tp00_pp00_shard00", "tp00pp00", "00", "pp00_tp00"])
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=f"model_state.{name}.pdparams: is of no rank that can be merged"):
        find_rank_files(write(tmp_path, name))
