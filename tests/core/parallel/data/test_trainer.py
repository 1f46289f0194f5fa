"""The trainer on two ranks: layouts that follow each other, and faults of one rank."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.convert.load import load_model
from llm_run.core.registry.manager import load_family
from llm_run.core.trainer.checkpoint import Checkpoint, read_checkpoint
from llm_run.core.trainer.metrics import read_metrics

LIMIT = 600
"""Seconds: far more than it takes, also beside other tests."""
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainer")


@pytest.fixture(scope="module")
def found(folder: Path, ranks: Callable[..., Found]) -> Found:
    """What each rank found out (``trainer_program.py``)."""
    return ranks(2, Path(__file__).parent / "trainer_program.py", folder, limit=LIMIT)


def tensors(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    return {name: checkpoint.reader.read(name) for name in checkpoint.reader.index}


def test_every_layout_resumes_the_state_of_another_to_the_bit(found: Found) -> None:
    main, other = (rank["chain"]["same"] for rank in found)
    assert main == [True] * 9
    assert other == [True] * 8  # the last layout is one process again


def test_ranks_of_any_layout_go_on_in_the_same_global_order(found: Found) -> None:
    steps = zip(*(rank["chain"]["asked"] for rank in found), strict=True)
    # Ranks that share matrices or layers see the same rows.
    assert [sorted({*main, *other}) for main, other in steps] == [list(range(4 * k, 4 * k + 4)) for k in range(10)]


def test_a_run_through_all_layouts_ends_as_that_of_one_process(found: Found, folder: Path) -> None:
    assert found[0]["plain"] == 0
    changed, plain = (tensors(read_checkpoint(folder / name / "checkpoint-10")) for name in ("chain", "plain"))
    assert changed.keys() == plain.keys()
    for name, expected in plain.items():
        np.testing.assert_allclose(changed[name], expected, rtol=0, atol=1e-5, err_msg=name)


def test_every_rank_writes_a_share_and_rank_0_alone_the_metrics(found: Found, folder: Path) -> None:
    for step, part in ((2, "stage 3"), (3, "tensor parallel"), (4, "data parallel")):
        directory = folder / "chain" / f"checkpoint-{step}"
        sizes = [os.path.getsize(directory / f"optimizer-{rank:05d}.safetensors") for rank in (0, 1)]
        assert max(sizes) < 1.1 * min(sizes), part
    assert [row["step"] for row in read_metrics(folder / "full") if "loss" in row] == [1, 2, 3]


def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all(found: Found) -> None:
    for rank in found:
        for layout in ("stage2", "tp2", "pp2", "sep2"):
            assert rank["poison"][layout] == {"status": 0, "updates": [1, 1, 2], "unchanged": True, "goes on": True}
        said = "step 2 (samples 4 to 7) is skipped: gradients are not finite: blocks.3.feed_forward.up_proj.weight"
        assert rank["skipped"] == [said] * 4


def test_a_disk_that_is_full_on_one_rank_is_tried_again_by_all(found: Found, folder: Path) -> None:
    said = "step 1: the checkpoint cannot be saved (rank 1: No space left on device); training goes on, next try after "
    for rank in found:
        assert rank["full"] == 0
        assert rank["said"] == [f"{said}the next step"]
    names = sorted(name for name in os.listdir(folder / "full") if "checkpoint" in name)
    assert names == ["checkpoint-2", "checkpoint-3"]


def test_a_signal_to_one_rank_stops_all_after_the_same_step(found: Found, folder: Path) -> None:
    assert [rank["stopped"] for rank in found] == [143, 143]
    assert [name for name in os.listdir(folder / "stopped") if "checkpoint" in name] == ["checkpoint-2"]
    assert not (folder / "stopped" / "config.json").exists()


def test_an_evaluation_is_split_and_its_sums_are_those_of_one_process(found: Found) -> None:
    for rank in found:
        loss, *counts = rank["evaluations"].pop("one")
        assert counts[-1] == 11
        for sums in rank["evaluations"].values():
            assert sums[1:] == counts
            assert sums[0] == pytest.approx(loss, rel=1e-6)


def test_ranks_hold_half_of_what_they_share(found: Found) -> None:
    for rank in found:
        assert (rank["held"]["one"], rank["held"]["dp2"]) == ([1.0, 1.0], [1.0, 1.0])
        # Both stages have the tied embedding, which is a fifth of this model.
        assert sum(rank["held"]["pp2"][0] for rank in found) == pytest.approx(1.0, abs=0.25)
        for stage, kept in (("stage1", 1.0), ("stage2", 1.0), ("stage3", 0.0), ("tp2", rank["held"]["tp2"][0])):
            assert rank["held"][stage][0] == pytest.approx(0.5, abs=0.01)
            assert rank["held"][stage][1] == kept


def test_shared_parameters_become_one_model_directory_without_a_checkpoint(found: Found, folder: Path) -> None:
    assert [rank["loose"] for rank in found] == [0, 0]
    assert not [name for name in os.listdir(folder / "loose") if "checkpoint" in name]
    family = load_family("llama")
    loaded = load_model(family, family.card.sizes["tiny-tied"], folder / "loose")
    expected = read_checkpoint(folder / "poison stage2" / "checkpoint-1").tensors_of("model")
    for name, parameter in loaded.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), expected[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("layout", ["tp2", "pp2"])
def test_the_model_directory_of_ranks_that_have_parts_is_whole(found: Found, folder: Path, layout: str) -> None:
    assert [rank[f"merged {layout}"] for rank in found] == [0, 0]
    family = load_family("llama")
    loaded = load_model(family, family.card.sizes["tiny-tied"], folder / f"merged {layout}")
    saved = tensors(read_checkpoint(folder / f"merged {layout}" / "checkpoint-1"))
    whole = {f"model/{name}": parameter.numpy() for name, parameter in loaded.named_parameters()}
    assert whole.keys() == {name for name in saved if name.startswith("model/")}
    assert all((array == saved[name]).all() for name, array in whole.items())
