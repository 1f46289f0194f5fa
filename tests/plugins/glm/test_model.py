"""The network equals PaddleNLP's and the formulas, for each kind of blank."""

from __future__ import annotations

import pickle
from types import ModuleType

import numpy as np
import paddle
import pytest

from llm_run.core.causal_lm import CausalLM
from llm_run.core.convert.load import load_model
from llm_run.core.data.collate import collate
from llm_run.core.data.sample import IGNORED, Sample
from llm_run.core.engine.runner import BatchRunner
from llm_run.core.registry.manager import load_family
from llm_run.core.trainer.inputs import to_inputs

NAMES = ("answer", "blank", "sentence")


@pytest.fixture(scope="module")
def model(golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    """The golden weights, read from a ``.pdparams`` file."""
    file = tmp_path_factory.mktemp("paddlenlp") / "model_state.pdparams"
    file.write_bytes(pickle.dumps(golden.weights(), protocol=4))
    family = load_family("glm")
    ids = {"sop_token_id": golden.SOP, "blank_token_ids": [golden.MASK, golden.SMASK, golden.GMASK]}
    loaded = load_model(family, family.card.config_class.from_fields({**golden.CONFIG, **ids}), file)
    loaded.eval()
    return loaded


def sample(ids: list[int], sop: int, segment: int = 1) -> Sample:
    """A record as tuning makes it: the prompt runs up to and with ``<|startofpiece|>``."""
    prompt = ids.index(sop) + 1
    labels = np.array([*ids[1:], IGNORED])
    labels[: prompt - 1] = IGNORED
    return Sample(np.array(ids), labels, np.full(len(ids), segment, np.int32), np.arange(len(ids)) < prompt)


def run(model: CausalLM, *rows: Sample) -> np.ndarray:
    inputs = to_inputs(collate(rows, model.config, 84), model.config)
    with paddle.no_grad():
        return np.asarray(model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_those_of_paddlenlp(model: CausalLM, golden: ModuleType, name: str) -> None:
    logits_SV = run(model, sample(golden.PROMPTS[name], golden.SOP))[0]
    assert np.abs(logits_SV - np.load(golden.FILE)[name]).max() < 1e-4


@pytest.mark.parametrize(("name", "blank"), [("answer", 5), ("blank", 2), ("sentence", 3)])
def test_logits_equal_the_formulas(
    model: CausalLM, golden: ModuleType, reference: ModuleType, name: str, blank: int
) -> None:
    ids = golden.PROMPTS[name]
    expected = reference.logits(golden.weights(), golden.CONFIG, ids, context=ids.index(golden.SOP), blank=blank)
    assert np.abs(run(model, sample(ids, golden.SOP))[0] - expected).max() < 1e-4
    assert np.abs(np.load(golden.FILE)[name] - expected).max() < 1e-4


def test_rows_of_several_records_equal_paddlenlp_on_each(model: CausalLM, golden: ModuleType) -> None:
    parts = [sample(golden.PROMPTS[name], golden.SOP, segment) for segment, name in enumerate(NAMES, start=1)]
    fields = ("ids", "labels", "segments", "prefix")
    logits_SV = run(model, Sample(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields)))[0]
    ends = np.cumsum([len(part.ids) for part in parts])
    for name, found in zip(NAMES, np.split(logits_SV, ends[:-1]), strict=True):
        assert np.abs(found - np.load(golden.FILE)[name]).max() < 1e-4


def test_generating_step_by_step_equals_paddlenlp_in_one_pass(model: CausalLM, golden: ModuleType) -> None:
    # A batch of three prompts of different length, so that two are padded; the answers' tokens are forced.
    expected, rows = np.load(golden.FILE), [golden.PROMPTS[name] for name in NAMES]
    starts = [ids.index(golden.SOP) + 1 for ids in rows]
    runner = BatchRunner(model, [ids[:start] for ids, start in zip(rows, starts, strict=True)])
    steps = [runner.prefill(), runner.step([ids[start] for ids, start in zip(rows, starts, strict=True)])]
    for step, logits_BV in enumerate(steps):
        for row, name in enumerate(NAMES):
            assert np.abs(logits_BV.numpy()[row] - expected[name][starts[row] - 1 + step]).max() < 1e-4


def test_dropout_acts_in_training_only(golden: ModuleType, model: CausalLM) -> None:
    row = sample(golden.PROMPTS["answer"], golden.SOP)
    quiet = run(model, row)
    assert np.array_equal(run(model, row), quiet)
    model.train()
    try:
        assert np.abs(run(model, row) - quiet).max() > 1e-2
    finally:
        model.eval()
