"""The network equals PaddleNLP's and the formulas; its context sees itself both ways and nothing of the answer."""

from __future__ import annotations

import pickle
from types import ModuleType
from typing import Any

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


@pytest.fixture(scope="module")
def model(golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    """The golden weights, read from a ``.pdparams`` file."""
    file = tmp_path_factory.mktemp("paddlenlp") / "model_state.pdparams"
    file.write_bytes(pickle.dumps(golden.weights(), protocol=4))
    family = load_family("chatglm")
    loaded = load_model(family, family.card.config_class.from_fields(golden.CONFIG), file)
    loaded.eval()
    return loaded


def sample(ids: list[int], bos: int, segment: int = 1) -> Sample:
    """A record as tuning makes it: the prompt runs up to and with ``<sop>``."""
    prompt = ids.index(bos) + 1
    labels = np.array([*ids[1:], IGNORED])
    labels[: prompt - 1] = IGNORED
    return Sample(np.array(ids), labels, np.full(len(ids), segment, np.int32), np.arange(len(ids)) < prompt)


def run(model: CausalLM, *rows: Sample) -> np.ndarray:
    inputs = to_inputs(collate(rows, model.config, 3), model.config)
    with paddle.no_grad():
        return np.asarray(model.head(model(inputs.ids_BS, inputs.positions, inputs.mask)).numpy())


@pytest.mark.parametrize("name", ["answer", "blank"])
def test_logits_equal_those_of_paddlenlp(model: CausalLM, golden: ModuleType, name: str) -> None:
    ids = golden.PROMPTS[name]
    expected = np.load(golden.FILE)[name]
    assert np.abs(run(model, sample(ids, golden.CONFIG["bos_token_id"]))[0] - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["answer", "blank"])
def test_logits_equal_the_formulas(model: CausalLM, golden: ModuleType, reference: ModuleType, name: str) -> None:
    ids = golden.PROMPTS[name]
    expected = reference.logits(golden.weights(), golden.CONFIG, ids)
    assert np.abs(run(model, sample(ids, golden.CONFIG["bos_token_id"]))[0] - expected).max() < 1e-4
    assert np.abs(np.load(golden.FILE)[name] - expected).max() < 1e-4


def test_a_row_of_two_records_equals_paddlenlp_on_each(model: CausalLM, golden: ModuleType) -> None:
    # PaddleNLP's own packing numbers the context of a packed record wrongly; its single rows are right.
    bos, first, second = golden.CONFIG["bos_token_id"], golden.PROMPTS["answer"], golden.PROMPTS["blank"]
    one, two = sample(first, bos), sample(second, bos, segment=2)
    fields = ("ids", "labels", "segments", "prefix")
    row = Sample(*(np.concatenate([getattr(one, name), getattr(two, name)]) for name in fields))
    logits_SV, expected = run(model, row)[0], np.load(golden.FILE)
    assert np.abs(logits_SV[: len(first)] - expected["answer"]).max() < 1e-4
    assert np.abs(logits_SV[len(first) :] - expected["blank"]).max() < 1e-4


def test_generating_step_by_step_equals_paddlenlp_in_one_pass(model: CausalLM, golden: ModuleType) -> None:
    # A batch of two prompts of different length, so that one is padded; the answers' tokens are forced.
    bos, expected = golden.CONFIG["bos_token_id"], np.load(golden.FILE)
    rows = [golden.PROMPTS["answer"], golden.PROMPTS["blank"]]
    starts = [ids.index(bos) + 1 for ids in rows]
    runner = BatchRunner(model, [ids[:start] for ids, start in zip(rows, starts, strict=True)])
    steps = [runner.prefill(), runner.step([ids[start] for ids, start in zip(rows, starts, strict=True)])]
    for step, logits_BV in enumerate(steps):
        for row, name in enumerate(("answer", "blank")):
            assert np.abs(logits_BV.numpy()[row] - expected[name][starts[row] - 1 + step]).max() < 1e-4


def test_the_context_sees_its_end_but_not_the_answer_and_its_opening(model: CausalLM, golden: ModuleType) -> None:
    bos, ids = golden.CONFIG["bos_token_id"], golden.PROMPTS["answer"]
    opening = ids.index(bos)
    before = run(model, sample(ids, bos))[0]

    def changed(place: int) -> Any:
        other = [*ids[:place], 50, *ids[place + 1 :]]
        rewritten = Sample(
            np.array(other), *(getattr(sample(ids, bos), name) for name in ("labels", "segments", "prefix"))
        )
        return np.abs(run(model, rewritten)[0] - before).max(axis=-1)

    assert changed(opening - 2)[0] > 1e-3
    assert changed(opening + 1)[: opening + 1].max() == 0.0
