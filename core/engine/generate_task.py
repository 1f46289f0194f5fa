"""``--task generate``: answers the prompts of a JSONL file into another one."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..data.progress import progress
from ..data.records import BadRecords
from ..errors import DataError
from ..parallel.join import mesh_of
from .output_file import OutputFile
from .prompts import prompt_ids, read_prompts
from .setup import load_text_format, load_text_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..causal_lm import CausalLM
    from ..parallel.mesh import Mesh
    from ..run import Run
    from .prompts import PromptRecord
    from .request import Completion, Request
    from .runner import BatchModel
    from .setup import TextFormat

log = logging.getLogger("llm_run.engine")
BEGINNING = "the first prompt without an answer"
NOT_IN_ANSWERS = ("data_file", "output_file", "batch_size", "num_draft_tokens", "draft_model")
"""Decoding options that decide where answers come from and go to, but not what they say."""

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pdparams", ".pdiparams", ".gguf")


def run(run: Run) -> int:
    """Answer every record of ``--data_file`` that ``--output_file`` does not hold yet.

    Raises:
        RefusedError: the tokenizer does not fit the model, or the output file belongs to another run.
        DataError: a record is malformed.
    """
    options = run.config.decoding
    assert options.data_file is not None, "core/config/check.py asks for it"
    bad = BadRecords("skip" if run.config.data.on_bad_record == "skip" else "error")
    records = read_prompts(Path(options.data_file), bad)
    text = load_text_format(run)
    prompts = _encode(records, text, bad, longest=min(run.config.data.src_length, run.model_config.max_positions - 1))
    with mesh_of(run.config.launch) as mesh:
        if not mesh.is_main:
            return _help(run, text, [ids for _, ids in prompts], mesh)
        with OutputFile(Path(options.output_file), [record for record, _ in prompts], _origin(run, text)) as output:
            summary = _Summary(bad, num_before=output.num_done)
            left = prompts[mesh.share(output.num_done, BEGINNING) :]
            if left:
                _answer_all(run, _load(run, mesh), text, [ids for _, ids in left], output, summary)
    for line in summary.lines(run):
        log.info(line)
    return 0


def _load(run: Run, mesh: Mesh) -> CausalLM | BatchModel:
    if run.config.decoding.mode == "static":
        from .static.exported import load_exported

        return load_exported(run)
    return load_text_model(run, mesh)


def _help(run: Run, text: TextFormat, prompts: Sequence[list[int]], mesh: Mesh) -> int:
    """Compute this rank's part of what rank 0 answers."""
    left = prompts[mesh.share(None, BEGINNING) :]
    if left:
        model = load_text_model(run, mesh)
        if text.settings.strategy == "beam_search":  # every rank searches: from equal logits they find the same
            deque(_in_batches(run, model, text, _requests(text, left, 0)), maxlen=0)
        else:
            from .ranks import follow

            follow(model)
    return 0


def _encode(
    records: Sequence[PromptRecord], text: TextFormat, bad: BadRecords, *, longest: int
) -> list[tuple[PromptRecord, list[int]]]:
    """Render all prompts before the model is loaded, so that a bad one is found in the first seconds."""
    prompts = []
    for record in records:
        try:
            prompts.append((record, prompt_ids(record, text.tokenizer, text.template, longest=longest)))
        except DataError as error:
            bad.handle(DataError(f"{record.place}: {error}"))
    return prompts


def _answer_all(
    run: Run,
    model: CausalLM | BatchModel,
    text: TextFormat,
    prompts: Sequence[list[int]],
    output: OutputFile,
    summary: _Summary,
) -> None:
    requests = _requests(text, prompts, output.num_done)
    if text.settings.strategy == "beam_search" or run.config.decoding.mode == "static":
        answers = _in_batches(run, model, text, requests)
    else:
        answers = _stream_all(run, cast("CausalLM", model), text, requests, summary)
    start = time.perf_counter()
    with progress("generating", len(prompts), shown=not run.config.training.disable_tqdm) as advance:
        for completion in answers:
            summary.add(completion, text.settings.max_new_tokens)
            output.write([(completion.text, completion.finish_reason)])
            advance(1)
    summary.seconds = time.perf_counter() - start


def _requests(text: TextFormat, prompts: Sequence[list[int]], first: int) -> list[Request]:
    from .request import Request

    return [
        Request(prompt=prompt, settings=text.settings, number=number)
        for number, prompt in enumerate(prompts, start=first)
    ]


def _stream_all(
    run: Run, model: CausalLM, text: TextFormat, requests: Sequence[Request], summary: _Summary
) -> Iterator[Completion]:
    from ..launch.resident import peak_resident_bytes
    from .answer_times import AnswerTimes
    from .offline import answer_in_order, running_engine
    from .speculation import make_drafter

    options, times = run.config.decoding, AnswerTimes()
    drafter = make_drafter(options, model.config)
    lengths = [len(request.prompt) + request.room(model.config) for request in requests]
    with running_engine(
        model, text.tokenizer, lengths,
        max_running=options.batch_size, drafter=drafter, int8_cache=options.cachekv_int8,
    ) as engine:  # fmt: skip
        for completion, handle in answer_in_order(engine, requests):
            times.add(handle)
            yield completion
        summary.speed = list(times.lines(engine.stats(), peak_resident_bytes()))


def _in_batches(
    run: Run, model: CausalLM | BatchModel, text: TextFormat, requests: Sequence[Request]
) -> Iterator[Completion]:
    from .decode import generate

    size = run.config.decoding.batch_size or 1
    for start in range(0, len(requests), size):
        batch = requests[start : start + size]
        prompts, numbers = [request.prompt for request in batch], [request.number for request in batch]
        yield from generate(model, prompts, text.settings, tokenizer=text.tokenizer, numbers=numbers)


def _origin(run: Run, text: TextFormat) -> dict[str, Any]:
    """Return all that decides the answers."""
    model = run.config.model
    options = {key: value for key, value in asdict(run.config.decoding).items() if key not in NOT_IN_ANSWERS}
    return {
        "family": run.config.family,
        "model_name_or_path": model.model_name_or_path,
        "model_files": _file_stamps(model.model_name_or_path),
        "model_size": model.model_size,
        "tokenizer_name_or_path": model.tokenizer_name_or_path,
        "chat_template": None if text.template is None else text.template.jinja,
        "src_length": run.config.data.src_length,
        "seed": run.config.training.seed,
        **options,
    }


def _file_stamps(place: str | None) -> list[list[Any]]:
    """Return name, size and time of the weight files: another model in the same folder gives other answers."""
    if place is None:
        return []
    path = Path(place)
    files = [file for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES] if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)]


@dataclass(slots=True)
class _Summary:
    """What the last lines say."""

    bad: BadRecords
    num_before: int
    num_answers: int = 0
    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    num_cut: int = 0
    seconds: float = 0.0
    speed: list[str] = field(default_factory=list)

    def add(self, completion: Completion, max_new_tokens: int) -> None:
        self.num_answers += 1
        self.num_prompt_tokens += completion.num_prompt_tokens
        self.num_new_tokens += len(completion.ids)
        self.num_cut += completion.finish_reason == "length" and len(completion.ids) < max_new_tokens

    def lines(self, run: Run) -> Iterator[str]:
        speed = f", {self.num_new_tokens / self.seconds:.1f} tokens/s" if self.seconds > 0 else ""
        yield (
            f"{run.config.decoding.output_file}: answers written: {self.num_answers}, of {self.num_new_tokens} tokens "
            f"in all, to prompts of {self.num_prompt_tokens}, in {self.seconds:.1f} s{speed}"
        )
        yield from self.speed
        if self.num_before:
            yield f"answers that were there already: {self.num_before}"
        if self.bad.count:
            yield f"malformed records left out: {self.bad.count}"
            yield from self.bad.messages
        if self.num_cut:
            positions = run.model_config.max_positions
            yield f"answers cut at the model's {positions} positions, before max_new_tokens: {self.num_cut}"
