"""NEFTune's noise: its scale, where it falls, and that it belongs to a place in the global order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from llm_run.core.data.collate import collate
from llm_run.core.trainer.embedding_noise import draw_noise, noise_of
from llm_run.core.trainer.metrics import read_metrics


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out) if "loss" in row]


def test_the_scale_is_that_of_the_paper_for_the_real_tokens_of_each_record() -> None:
    # arXiv:2310.05914, algorithm 1: uniform in [-1, 1] times alpha / sqrt(L d).
    segments = np.array([[1] * 100 + [2] * 300 + [0] * 50, [1] * 450])
    noise = draw_noise(segments, 64, 5.0, 1, 0)
    assert not noise[0, 400:].any()
    for part, length in ((noise[0, :100], 100), (noise[0, 100:400], 300), (noise[1], 450)):
        most = 5.0 / np.sqrt(length * 64)
        assert np.abs(part).max() == pytest.approx(most, rel=1e-3)
        assert part.std() == pytest.approx(most / np.sqrt(3), rel=0.02)
        assert abs(part.mean()) < 0.02 * most


def test_a_row_has_its_own_noise_whatever_stands_beside_it() -> None:
    rows = [np.array([[1] * length]) for length in (9, 5, 7)]
    together = np.zeros((3, 9), dtype=int)
    for row, segments in enumerate(rows):
        together[row, : segments.shape[1]] = segments
    noise = draw_noise(together, 8, 5.0, 1, 40)
    for row, segments in enumerate(rows):
        alone = draw_noise(segments, 8, 5.0, 1, 40 + row)
        assert np.array_equal(noise[row, : segments.shape[1]], alone[0])
    assert not np.array_equal(draw_noise(rows[0], 8, 5.0, 2, 40), noise[:1])


def test_the_embedding_gets_exactly_this_noise(make_job: Any, rows: Any, tmp_path: Path) -> None:
    job = make_job(tmp_path, rows(ragged=True), neftune_noise_alpha=5.0)
    noise = noise_of(job)
    assert noise is not None
    batch = collate([job.training.sample(position) for position in range(3)], job.config, 0)
    ids, positions = paddle.to_tensor(batch.ids_BS), paddle.to_tensor(batch.positions)
    job.model.train()
    plain = job.model.embed(ids, positions).numpy()
    noise.expect(batch, 17)
    drawn = draw_noise(batch.segments_BS, job.config.hidden_size, 5.0, job.options.seed, 17)
    assert np.abs(job.model.embed(ids, positions).numpy() - plain - drawn).max() < 1e-7
    job.model.eval()
    assert np.array_equal(job.model.embed(ids, positions).numpy(), plain)


def test_training_with_noise_does_not_depend_on_the_cut_and_is_resumed_to_the_bit(
    make_job: Any, run_job: Any, rows: Any, tmp_path: Path
) -> None:
    source = rows(ragged=True, prompt=3)
    found = {}
    for name, options in {
        "plain": {}, "whole": {"neftune_noise_alpha": 40.0}, "half": {"neftune_noise_alpha": 40.0, "max_steps": 3},
        "cut": {"neftune_noise_alpha": 40.0, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    }.items():  # fmt: skip
        run_job(make_job(tmp_path / name, source, lr_scheduler_type="constant", **options))
        found[name] = losses(tmp_path / name)
    run_job(make_job(tmp_path / "half", source, lr_scheduler_type="constant", neftune_noise_alpha=40.0))
    assert losses(tmp_path / "half") == found["whole"]
    assert found["cut"] == pytest.approx(found["whole"], rel=1e-5)
    assert abs(found["plain"][0] - found["whole"][0]) > 1e-4


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        ({}, None),
        ({"neftune": True}, 5.0),
        ({"neftune": True, "neftune_noise_alpha": 7.0}, 7.0),
        ({"neftune_noise_alpha": 7.0}, 7.0),
        ({"neftune_noise_alpha": 0.0}, None),
        ({"neftune": False, "neftune_noise_alpha": 5.0}, None),
    ],
)
def test_switch_and_strength_are_read_as_the_seed_and_as_others_write_them(
    make_job: Any, rows: Any, tmp_path: Path, options: dict[str, Any], alpha: float | None
) -> None:
    noise = noise_of(make_job(tmp_path, rows(), **options))
    assert (None if noise is None else noise.alpha) == alpha
