"""What can be said against the options of evaluation before anything is imported or read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Problem
from .text_scores import missing_libraries

if TYPE_CHECKING:
    from ..run import RunConfig


LOSSES = ("loss", "ppl", "accuracy")
SCORES = tuple(f"{name}{end}" for end in ("", "_char") for name in ("bleu4", "rouge1", "rouge2", "rougel"))


def check_evaluation(config: RunConfig) -> Iterator[Problem]:
    """Yield the problems of ``--task evaluate``; imports no Paddle."""
    data, options, training = config.data, config.evaluation, config.training
    records = data.dataset_name_or_path or data.eval_dataset
    if not (data.input_dir or data.input_path or records or options.benchmark):
        remedy = "Give input_dir (token files), input_path (text), dataset_name_or_path (records) or benchmark."
        yield Problem("--task", "evaluate", "has nothing to evaluate on", remedy)
    if training.output_dir is None:
        yield Problem("--output_dir", "", "is needed by --task evaluate", "Name a folder for the results.")
    if training.per_device_eval_batch_size < 1:
        size = str(training.per_device_eval_batch_size)
        yield Problem("--per_device_eval_batch_size", size, "must be 1 or more")
    yield from _without_effect(config)
    if data.max_length < 2:
        yield Problem("--max_length", str(data.max_length), "must be 2 or more")
    if options.stride is not None and not 1 <= options.stride < max(2, data.max_length):
        yield Problem("--stride", str(options.stride), f"must be 1 or more and below max_length ({data.max_length})")
    if config.decoding.max_new_tokens < 1:
        yield Problem("--max_new_tokens", str(config.decoding.max_new_tokens), "is out of range", "Give 1 or more.")
    if options.eval_with_do_generation:
        yield from _libraries()


def _without_effect(config: RunConfig) -> Iterator[Problem]:
    """Yield options that ask for something without what they need."""
    data, options = config.data, config.evaluation
    if options.eval_with_do_generation and not (data.dataset_name_or_path or data.eval_dataset):
        reason = "has no records with reference answers"
        yield Problem("--eval_with_do_generation", "true", reason, "Give --dataset_name_or_path or --eval_dataset.")
    if options.benchmark and not config.decoding.data_file:
        yield Problem("--benchmark", options.benchmark, "has no questions", "Give their file as --data_file.")
    if config.decoding.data_file and not options.benchmark:
        remedy = "Give --benchmark, or records to compare with as --eval_dataset."
        yield Problem("--data_file", config.decoding.data_file, "is not said how to read", remedy)
    if options.num_fewshot < 0:
        yield Problem("--num_fewshot", str(options.num_fewshot), "must be 0 or more")
    if options.num_fewshot > 0 and not options.benchmark:
        yield Problem("--num_fewshot", str(options.num_fewshot), "has no effect without a benchmark", "Leave it out.")
    if options.stride is not None and not data.input_path:
        yield Problem("--stride", str(options.stride), "has no effect without input_path", "Leave it out.")


def check_generation_in_training(config: RunConfig) -> Iterator[Problem]:
    """Yield what stands against answering the evaluation records while training."""
    training = config.training
    if not config.evaluation.eval_with_do_generation:
        return
    if not training.do_eval and training.evaluation_strategy == "no":
        remedy = "Give --do_eval true or --evaluation_strategy."
        yield Problem("--eval_with_do_generation", "true", "has no evaluation to go with", remedy)
    yield from _libraries()


def check_metric(config: RunConfig) -> Iterator[Problem]:
    """Yield that the figure that decides which model is the best is none that this task measures."""
    asked = config.training.metric_for_best_model.removeprefix("eval_")
    known = [*LOSSES, *(SCORES if config.evaluation.eval_with_do_generation else ())]
    if asked in known:
        return
    remedy = f"Measured are {', '.join(known)}."
    if asked in SCORES:
        remedy = "Give --eval_with_do_generation true."
    yield Problem("--metric_for_best_model", asked, "is not measured", remedy)


def _libraries() -> Iterator[Problem]:
    missing = missing_libraries()
    if missing:
        reason = f"needs {' and '.join(missing)}"
        yield Problem("--eval_with_do_generation", "true", reason, 'Install them: pip install "llm-run[eval]".')
