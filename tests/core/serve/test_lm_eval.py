"""EleutherAI's harness over HTTP gives what this package's own evaluation gives in the process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.data.tokenizers import JsonTokenizer, TokenFacts
from llm_run.core.engine.decode import generate
from llm_run.core.engine.settings import SamplingSettings
from llm_run.core.evaluation.multiple_choice import MultipleChoice
from llm_run.core.evaluation.questions import Question
from llm_run.core.evaluation.shots import ENGLISH, Asker

QUESTIONS = [
    Question(f"q:{one}", f"{one} and {one + 2} make?", (str(2 * one + 2), "nine", f"{one} or less"), one % 3)
    for one in range(12)
]
CHOICE = {
    "task": "sums", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "Question: {{text}}\nAnswer:", "doc_to_choice": "options", "doc_to_target": "answer",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}  # fmt: skip
WRITE = {
    "task": "lines", "dataset_path": "json", "test_split": "test", "output_type": "generate_until",
    "doc_to_text": "{{text}}", "doc_to_target": "answer", "metric_list": [{"metric": "exact_match"}],
    "generation_kwargs": {"until": ["7"], "max_gen_toks": 12, "temperature": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def plain_tokenizer(tokenizer_folder: Path) -> JsonTokenizer:
    """The harness asks a server for tokens without the one that begins a text."""
    return JsonTokenizer(tokenizer_folder, facts=TokenFacts(bos="<s>", eos="</s>", prefix=()))


@pytest.fixture
def place(make_service: Any, listening: Any, plain_tokenizer: JsonTokenizer) -> Any:
    with listening(make_service(spells=plain_tokenizer), []) as place:
        yield place


@pytest.fixture
def harness(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a task of the harness through ``local-completions``; return its results and samples."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    import lm_eval
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    lines = [{"text": one.text, "options": list(one.options), "answer": one.answer} for one in QUESTIONS]
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(task: dict[str, Any], batch_size: int) -> Any:
        client = LocalCompletionsAPI(
            base_url=f"{place.url}/v1/completions", model="tiny", tokenizer_backend="remote", num_concurrent=2,
            batch_size=batch_size, max_length=128,
        )  # fmt: skip
        asked = task | {"dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path / "cache")}}
        return lm_eval.simple_evaluate(
            client, tasks=[asked], bootstrap_iters=0, log_samples=True, cache_requests=False, verbosity="ERROR"
        )

    return run


@pytest.mark.parametrize("batch_size", [1, 5])
def test_accuracies_and_likelihoods_are_those_of_the_process(
    harness: Any, model: Any, plain_tokenizer: JsonTokenizer, batch_size: int
) -> None:
    found = harness(CHOICE, batch_size)
    asker = Asker(plain_tokenizer, None, ENGLISH, (), 128)
    own = MultipleChoice("sums", QUESTIONS, asker, by_letter=False)
    figures = own.run(model, batch_size=4, advance=lambda _: None)
    assert 0 < figures["acc"] < 1
    assert found["results"]["sums"]["acc,none"] == pytest.approx(figures["acc"])
    assert found["results"]["sums"]["acc_norm,none"] == pytest.approx(figures["acc_norm"])
    samples = sorted(found["samples"]["sums"], key=lambda sample: sample["doc_id"])
    theirs = [[float(option[0]) for option in sample["filtered_resps"]] for sample in samples]
    np.testing.assert_allclose(theirs, [line["log_probabilities"] for line in own.lines], rtol=1e-5, atol=1e-4)


def test_answers_are_those_of_greedy_decoding(harness: Any, model: Any, plain_tokenizer: JsonTokenizer) -> None:
    samples = harness(WRITE, 1)["samples"]["lines"]
    prompts = [plain_tokenizer.encode(QUESTIONS[sample["doc_id"]].text) for sample in samples]
    settings = SamplingSettings(max_new_tokens=12, stop_ids=(plain_tokenizer.eos_id,), stop=("7", "</s>"))
    expected = [generate(model, [prompt], settings, tokenizer=plain_tokenizer)[0].text for prompt in prompts]
    assert [sample["resps"][0][0] for sample in samples] == expected
    assert len(set(expected)) > 6
