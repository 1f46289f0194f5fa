"""What static export does on every installed family, third parties included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llm_run.core.causal_lm import CausalLM
from llm_run.core.engine.decode import generate
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.engine.static.exported import ExportedModel
from llm_run.core.engine.static.graph import write_graph
from llm_run.core.engine.static.manifest import Manifest
from llm_run.core.engine.static.task import BOUND, compare

LENGTHS = (3, 8, 5)


def test_an_exported_graph_answers_with_the_tokens_of_the_model(variant: Any, model: CausalLM, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, "model", write_graph(model, tmp_path / "model"), 0, {})
    exported = ExportedModel(manifest, variant.config)
    random = np.random.default_rng(5)
    prompts = [random.integers(3, variant.config.vocab_size, [length]).tolist() for length in LENGTHS]
    settings = SamplingSettings(max_new_tokens=10)
    answers, expected = (generate(one, prompts, settings) for one in (exported, model))
    assert [answer.ids for answer in answers] == [answer.ids for answer in expected]
    assert len({tuple(answer.ids) for answer in answers}) > 1
    assert compare(model, manifest) < BOUND
