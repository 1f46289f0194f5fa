from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llm_run.core.errors import RefusedError
from llm_run.core.trainer.rates import lr_scales


def test_embedding_and_head_have_rates_of_their_own(make_job, rows, tmp_path):
    job = make_job(
        tmp_path, rows(), learning_rate=1e-3, embedding_learning_rate=4e-2, head_learning_rate=2e-3
    )  # fmt: skip
    scales = lr_scales(job)
    assert scales == pytest.approx({"embed_tokens.weight": 40.0, "lm_head.weight": 2.0})


def test_without_rates_of_their_own_nothing_is_scaled(make_job, rows, tmp_path):
    assert lr_scales(make_job(tmp_path, rows())) == {}


def test_a_head_that_is_the_embedding_learns_at_the_embedding_s_rate(make_job, rows, tmp_path, family, model_config):
    job = make_job(tmp_path, rows(), learning_rate=1e-3, embedding_learning_rate=1e-2, head_learning_rate=5e-3)
    tied = replace(model_config, tie_embeddings=True)
    job = replace(job, run=replace(job.run, model_config=tied), model=family.build_model(tied))
    assert lr_scales(job) == pytest.approx({"embed_tokens.weight": 10.0})


def test_a_rate_of_its_own_needs_a_rate_to_compare_with(make_job, rows, tmp_path):
    with pytest.raises(RefusedError, match="learning_rate: 0 leaves no rate"):
        lr_scales(make_job(tmp_path, rows(), learning_rate=0.0, embedding_learning_rate=1e-2))


def test_training_moves_the_embedding_at_its_rate_only(make_job, run_job, rows, tmp_path):
    def trained(name, **options):
        job = make_job(
            tmp_path / name, rows(), max_steps=1, learning_rate=1e-4, lr_scheduler_type="constant", **options
        )
        before = {key: tensor.numpy().copy() for key, tensor in job.model.state_dict().items()}
        assert run_job(job) == 0
        return {key: np.abs(tensor.numpy() - before[key]).max() for key, tensor in job.model.state_dict().items()}

    plain, fast = trained("plain"), trained("fast", embedding_learning_rate=1e-2)
    assert fast["embed_tokens.weight"] == pytest.approx(100 * plain["embed_tokens.weight"], rel=0.02)
    others = [key for key in plain if key != "embed_tokens.weight"]
    assert [fast[key] for key in others] == [plain[key] for key in others]
