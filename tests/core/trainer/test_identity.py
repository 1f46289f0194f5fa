from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from llm_run.core.config.training import TrainingOptions
from llm_run.core.errors import RefusedError
from llm_run.core.trainer.identity import COMBINED, FIXED, FREE, check_same_run, fingerprint_weights


def test_every_training_option_is_either_fixed_or_free() -> None:
    groups = [FIXED, COMBINED, FREE]
    assert sum(map(len, groups)) == len(FIXED | COMBINED | FREE)
    assert {field.name for field in fields(TrainingOptions)} == FIXED | COMBINED | FREE


def test_every_field_that_differs_is_named(tmp_path: Path) -> None:
    stored = {"seed": 42, "data": "aaa", "model.hidden_size": 64}
    check_same_run(stored, dict(stored), tmp_path)
    with pytest.raises(RefusedError) as caught:
        check_same_run(stored, {"seed": 43, "data": "aaa", "model.rope_theta": 10000.0}, tmp_path / "checkpoint-2")
    assert str(caught.value).splitlines()[0] == (
        f"{tmp_path}/checkpoint-2: seed: 43 was 42 in the run that wrote this checkpoint. "
        "Give another --output_dir, or --overwrite_output_dir true to delete that run."
    )
    assert [problem.key.rsplit(": ")[-1] for problem in caught.value.problems] == [
        "seed", "model.rope_theta", "model.hidden_size",
    ]  # fmt: skip


def test_data_that_differ_are_told_by_a_short_fingerprint_and_what_it_is_made_of(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        check_same_run({"data": "a" * 64}, {"data": "b" * 64}, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: data: bbbbbbbbbbbb was aaaaaaaaaaaa in the run that wrote this checkpoint: the files, split, "
        "max_length or seed are others. Give another --output_dir, or --overwrite_output_dir true to delete that run."
    )


def test_weights_are_known_by_content_and_not_by_place(tmp_path: Path) -> None:
    for name, content in (("a", b"1" * 200_000), ("b", b"1" * 200_000), ("c", b"1" * 199_999 + b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / name / "README.md").write_text(name)
    a, b, c = (fingerprint_weights(tmp_path / name) for name in "abc")
    assert a == b != c
