"""``--task evaluate``: measures a model by token files, text, records and benchmarks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..data.instruction import find_files, open_instruction_data
from ..data.pretraining import open_pretraining_data
from ..data.progress import progress
from ..data.records import BadRecords
from ..engine.setup import load_text_format, load_text_model
from ..errors import DataError, Problem, RefusedError
from .answers import ReferenceAnswers, write_lines
from .benchmarks import open_benchmark
from .text_perplexity import TextPerplexity, read_texts

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..data.sample import SampleSource
    from ..engine.setup import TextFormat
    from ..run import Run

log = logging.getLogger("llm_run.evaluation")
RESULTS = "evaluation.json"


class Measure(Protocol):
    """Something to measure a model by, read and encoded before the model is loaded."""

    name: str

    @property
    def num_items(self) -> int:
        """What a progress bar counts."""

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        """Return figures by name; they do not depend on the batch size."""


def run(run: Run) -> int:
    """Measure the model by everything that the options name, and write ``evaluation.json``.

    Raises:
        RefusedError: the tokenizer does not fit the model.
        DataError: data are missing or malformed.
    """
    assert run.config.training.output_dir is not None, "check_evaluation asks for it"
    folder = Path(run.config.training.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output_dir: {folder} cannot be made ({error.strerror}).") from error
    run = _only_evaluating(run)
    measures = list(_open(run, folder))
    model = load_text_model(run)
    results = {measure.name: _measure(run, model, measure) for measure in measures}
    _write(folder, run, results)
    for name, figures in results.items():
        log.info("%s  %s", name, "  ".join(f"{key} {value:.6g}" for key, value in figures.items()))
    log.info("%s", folder / RESULTS)
    return 0


def _only_evaluating(run: Run) -> Run:
    """Return the run with the words that the readers of training data understand."""
    training = replace(run.config.training, do_train=False, do_eval=True)
    data = run.config.data
    if data.dataset_name_or_path and Path(data.dataset_name_or_path).is_file():
        if data.eval_dataset:
            reason = "names records to evaluate on, and so does eval_dataset"
            raise RefusedError(Problem("--dataset_name_or_path", data.dataset_name_or_path, reason, "Give one file."))
        data = replace(data, dataset_name_or_path=None, eval_dataset=data.dataset_name_or_path)
    return replace(run, config=replace(run.config, training=training, data=data))


def _open(run: Run, folder: Path) -> Iterator[Measure]:
    """Yield all measures, each ready to run."""
    config = run.config
    if config.data.input_dir:
        _, source = open_pretraining_data(run, 1)
        assert source is not None
        yield TokenLoss("tokens", source, run, pad_id=0)
    data = config.data
    if data.input_path or data.eval_dataset or data.dataset_name_or_path or config.evaluation.benchmark:
        yield from _open_text(run, load_text_format(run), folder)


def _open_text(run: Run, text: TextFormat, folder: Path) -> Iterator[Measure]:
    config, data = run.config, run.config.data
    bad = BadRecords("skip" if data.on_bad_record == "skip" else "error")
    if data.input_path:
        length = data.max_length
        documents = read_texts(Path(data.input_path), data.json_key, bad)[: _most(run)]
        stride = config.evaluation.stride or max(1, length // 2)
        yield TextPerplexity(documents, text.tokenizer, length=length, stride=stride)
    if data.eval_dataset or data.dataset_name_or_path:
        _, source = open_instruction_data(run, text.tokenizer, text.template)
        assert source is not None
        yield TokenLoss("records", source, run, pad_id=text.tokenizer.pad_id)
    if config.evaluation.eval_with_do_generation:
        yield Answering(run, text, bad, folder)
    if config.evaluation.benchmark:
        yield Kept(open_benchmark(run, text, bad, most=_most(run)), folder)
    if bad.count:
        log.warning("malformed records left out: %d; the first: %s", bad.count, "; ".join(bad.messages))


def _most(run: Run) -> int | None:
    """Return how many records are looked at; ``None`` for all."""
    training = run.config.training
    most = training.max_evaluate_steps
    return None if most < 0 else most * training.per_device_eval_batch_size


class TokenLoss:
    """Loss, perplexity and token accuracy over samples (a ``Measure``)."""

    def __init__(self, name: str, source: SampleSource, run: Run, *, pad_id: int) -> None:
        self.name = name
        self._source, self._pad_id = source, pad_id
        self._most = run.config.training.max_evaluate_steps

    @property
    def num_items(self) -> int:
        return self._source.epoch_size

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        from ..trainer.evaluate import evaluate

        evaluation = evaluate(
            model, self._source, batch_size=batch_size, pad_id=self._pad_id, max_batches=self._most, advance=advance
        )
        return {name.removeprefix("eval_"): value for name, value in evaluation.metrics().items()}


class Answering:
    """BLEU and ROUGE of the model's answers to records, which are kept in a file (a ``Measure``)."""

    name = "answers"

    def __init__(self, run: Run, text: TextFormat, bad: BadRecords, folder: Path) -> None:
        data = run.config.data
        _, files = find_files(data.dataset_name_or_path, data.eval_dataset)
        longest = min(data.src_length, run.model_config.max_positions - 1)
        self._answers = ReferenceAnswers(files, text.tokenizer, text.template, bad, longest=longest, most=_most(run))
        self._settings, self._path = text.settings, folder / "predictions.jsonl"

    @property
    def num_items(self) -> int:
        return len(self._answers.records)

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        places = range(self.num_items)
        found = self._answers.answer(model, self._settings, places, batch_size=batch_size, advance=advance)
        self._answers.save(self._path, found)
        return {**self._answers.scores(found), "records": len(found)}


class Kept:
    """A benchmark whose single answers are kept in ``predictions-<name>.jsonl`` (a ``Measure``)."""

    def __init__(self, benchmark: Any, folder: Path) -> None:
        self.name: str = benchmark.name
        self._benchmark, self._path = benchmark, folder / f"predictions-{benchmark.name}.jsonl"

    @property
    def num_items(self) -> int:
        return int(self._benchmark.num_items)

    def run(self, model: CausalLM, *, batch_size: int, advance: Callable[[float], None]) -> dict[str, float]:
        figures: dict[str, float] = self._benchmark.run(model, batch_size=batch_size, advance=advance)
        write_lines(self._path, self._benchmark.lines)
        return figures


def _measure(run: Run, model: CausalLM, measure: Measure) -> dict[str, float]:
    training = run.config.training
    start = time.perf_counter()
    with progress(measure.name, measure.num_items, shown=not training.disable_tqdm) as advance:
        figures = measure.run(model, batch_size=training.per_device_eval_batch_size, advance=advance)
    return {**figures, "seconds": round(time.perf_counter() - start, 3)}


def _write(folder: Path, run: Run, results: Mapping[str, Mapping[str, float]]) -> None:
    """Write the figures with what they were measured of and how."""
    config = run.config
    options = asdict(config.model) | asdict(config.data) | asdict(config.decoding) | asdict(config.evaluation)
    told = {key: value for key, value in options.items() if config.origins.get(key, "default") != "default"}
    body = {"family": config.family, "options": told, "results": results}
    temporary = folder / f".{RESULTS}.tmp"
    temporary.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / RESULTS)
