"""The whole task, as the command runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_run.core.config.flags import parse
from llm_run.core.config.resolve import resolve
from llm_run.core.errors import RefusedError
from llm_run.core.request import prepare
from llm_run.core.tasks import load_task

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(peers: Any, tmp_path: Path) -> Evaluate:
    """Run the task on the tiny model into ``tmp_path/out`` and return the results."""

    def run(**options: object) -> dict[str, Any]:
        words = ["--task", "evaluate", "--model_name_or_path", str(peers.folder), "--output_dir", str(tmp_path / "out")]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        request, _ = prepare(resolve(parse(words))[0])
        assert load_task("evaluate")(request) == 0
        results: dict[str, Any] = json.loads((tmp_path / "out/evaluation.json").read_text())["results"]
        return results

    return run


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    """A file of every kind."""
    files = {name: tmp_path / f"{name}.jsonl" for name in ("text", "records", "choices", "sums")}
    records: dict[str, list[Any]] = {
        "text": [{"text": f"{place} and {place} make {2 * place}. " * place} for place in range(1, 9)],
        "records": [{"src": f"{place} and {place}" * place, "tgt": f"make {2 * place}"} for place in range(1, 12)],
        "choices": [{"question": f"{place}?", "choices": ["one", "ninety"], "answer": place % 2} for place in range(7)],
        "sums": [{"question": f"{place} and 1?", "answer": f"#### {place + 1}"} for place in range(6)],
    }
    for name, path in files.items():
        path.write_text("".join(json.dumps(record) + "\n" for record in records[name]))
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    np.save(tokens / "t_ids.npy", np.concatenate([(start + np.arange(60)) % 250 for start in range(20)]).astype("u2"))
    np.savez(tokens / "t_idx.npz", lens=np.full(20, 60, dtype=np.int32), docs=np.arange(21, dtype=np.int64))
    return {**files, "tokens": tokens}


def without_time(results: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: pytest.approx(value, rel=1e-5) for key, value in figures.items() if key != "seconds"}
        for name, figures in results.items()
    }


def test_every_kind_of_data_is_measured_whatever_the_batch_size(
    evaluate: Evaluate, data: dict[str, Path], tmp_path: Path
) -> None:
    options = {
        "input_dir": data["tokens"], "split": "50,50,0", "input_path": data["text"], "eval_dataset": data["records"],
        "eval_with_do_generation": "true", "benchmark": "multiple_choice", "data_file": data["choices"],
        "num_fewshot": 2, "max_length": 64, "src_length": 40, "max_new_tokens": 8,
    }  # fmt: skip
    found, kept = [], []
    for batch_size in (1, 5):
        found.append(evaluate(per_device_eval_batch_size=batch_size, **options))
        names = ("predictions.jsonl", "predictions-multiple_choice.jsonl")
        kept.append([(tmp_path / "out" / name).read_text().splitlines() for name in names])
    assert list(found[0]) == ["tokens", "text", "records", "answers", "multiple_choice"]
    assert found[1].keys() == found[0].keys()
    assert {name: set(one) for name, one in found[0].items()} == {name: set(one) for name, one in found[1].items()}
    for name, expected in without_time(found[0]).items():
        assert {key: value for key, value in found[1][name].items() if key != "seconds"} == expected
    assert kept[0][0] == kept[1][0] and len(kept[0][0]) == 11
    assert json.loads(kept[0][0][3]).keys() == {"src", "tgt", "output"}
    assert [json.loads(line)["choice"] for line in kept[0][1]] == [json.loads(line)["choice"] for line in kept[1][1]]


def test_records_are_measured_as_in_training(evaluate: Evaluate, data: dict[str, Path], peers: Any) -> None:
    from llm_run.core.data.encoded_records import encode_files
    from llm_run.core.data.encoding import Encoder

    options = {"max_length": 64, "src_length": 40, "chat_template": "none"}
    found = evaluate(dataset_name_or_path=data["records"], **options)["records"]
    packed = evaluate(
        dataset_name_or_path=data["records"], zero_padding="true", packing="best_fit", lazy="true", **options
    )["records"]
    records = encode_files([data["records"]], Encoder(peers.tokenizer, None, 40, 64))
    sums = []
    for record in range(records.count):
        (sample,) = records.samples(record)
        whole = [*sample.ids.tolist(), int(sample.labels[-1])]
        sums.append(peers.log_probabilities(whole)[sample.labels >= 0])
    assert found["loss"] == pytest.approx(-np.concatenate(sums).mean(), rel=1e-5)
    assert found["tokens"] == packed["tokens"] == len(np.concatenate(sums))
    assert packed["loss"] == pytest.approx(found["loss"], rel=1e-5)


def test_a_chat_template_changes_prompts_and_switches_nothing_off(
    evaluate: Evaluate, data: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "chat.jinja").write_text(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    options = {"eval_dataset": data["records"], "eval_with_do_generation": "true", "max_new_tokens": 8}
    options |= {"benchmark": "gsm8k", "data_file": data["sums"], "max_length": 200, "src_length": 150}
    plain = evaluate(chat_template="none", **options)
    chat = evaluate(chat_template=tmp_path / "chat.jinja", **options)
    assert list(chat) == list(plain) == ["records", "answers", "gsm8k"]
    assert chat["records"]["loss"] != plain["records"]["loss"]
    assert {"bleu4", "rouge1", "rouge2", "rougel"} <= chat["answers"].keys()


def test_a_limit_on_batches_holds_for_all(evaluate: Evaluate, data: dict[str, Path]) -> None:
    found = evaluate(
        eval_dataset=data["records"], eval_with_do_generation="true", benchmark="gsm8k", data_file=data["sums"],
        max_evaluate_steps=1, per_device_eval_batch_size=3, max_new_tokens=4, max_length=128, src_length=64,
    )  # fmt: skip
    assert (found["answers"]["records"], found["gsm8k"]["questions"]) == (3, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--task: evaluate has nothing to evaluate on"),
        ({"benchmark": "gsm8k"}, "--benchmark: gsm8k has no questions"),
        ({"data_file": "x.jsonl"}, "--data_file: x.jsonl is not said how to read"),
        ({"input_path": "x", "eval_with_do_generation": "true"}, "has no records with reference answers"),
        ({"eval_dataset": "x", "num_fewshot": 3}, "--num_fewshot: 3 has no effect without a benchmark"),
        ({"eval_dataset": "x", "stride": 3}, "--stride: 3 has no effect without input_path"),
        ({"input_path": "x", "stride": 64, "max_length": 64}, r"--stride: 64 must be 1 or more and below max_length"),
        ({"input_path": "x", "per_device_eval_batch_size": 0}, "--per_device_eval_batch_size: 0 must be 1 or more"),
        ({"input_path": "x", "learning_rate": 1}, "--learning_rate: is not read by --task evaluate"),
    ],
)
def test_what_would_have_no_effect_is_refused(evaluate: Evaluate, options: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        evaluate(**options)
