"""``--task convert``: weights of any format in, a Hugging Face model directory out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.check import GGUF_SUFFIX
from ..errors import DataError, Problem, RefusedError

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..data.tokenizer import Tokenizer
    from ..run import Run
    from .save import ModelParts


def run(run: Run) -> int:
    """Convert, read the result back, and say where it is.

    Raises:
        RefusedError: the output folder is in use, or its name is missing.
        WeightError: the weights are damaged, unsafe, or do not fit the model.
        DataError: the tokenizer is malformed.
    """
    options = run.config.convert
    source = Path(_given("model_name_or_path", run.config.model.model_name_or_path))
    target = Path(_given("output_path", options.output_path))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RefusedError(Problem("--output_path", str(target), "is not an empty folder", "Give a new one."))
    parts = open_parts(run, source)
    num_tensors = len(parts.tensors.shapes)
    if target.suffix == GGUF_SUFFIX:
        return _write_gguf(run, parts, target)
    report = write_with_progress(run, parts, target)
    written = sum(file["bytes"] for name, file in report["files"].items() if name.endswith(".safetensors"))
    print(f"{target}: {num_tensors} tensors, {written / 1e9:.2f} GB, read back equal to the bit. See report.json.")
    return 0


def write_with_progress(run: Run, parts: ModelParts, target: Path) -> dict[str, Any]:
    """Write a model directory in the dtype that was asked for, with bars, and return its report."""
    from .save import write_model_directory

    options = run.config.convert
    with _progress(quiet=run.config.training.disable_tqdm) as bars:
        return write_model_directory(
            parts,
            target,
            dtype=options.save_dtype,
            max_shard_gb=options.max_shard_size,
            on_written=_counter(bars, "write", _count_foreign(run)),
            on_checked=_counter(bars, "check", len(parts.tensors.shapes)),
        )


def _write_gguf(run: Run, parts: ModelParts, target: Path) -> int:
    from .gguf_writer import write_gguf

    with _progress(quiet=run.config.training.disable_tqdm) as bars:
        count = _counter(bars, "write", len(parts.tensors.shapes))
        facts = write_gguf(parts, target, dtype=run.config.convert.save_dtype, on_written=count)
    kinds = ", ".join(facts["types"])
    print(f"{target}: {facts['tensors']} tensors ({kinds}), {facts['bytes'] / 1e9:.2f} GB, read back as written.")
    return 0


def _given(name: str, value: str | None) -> str:
    if value is None:
        raise RefusedError(Problem(f"--{name}", "", "is needed by --task convert", "Give a path."))
    return value


def open_parts(run: Run, source: Path) -> ModelParts:
    """Open the weights, hold them against the model's shapes, and load what goes with them."""
    from .load import build_empty
    from .logical import open_logical, parameters
    from .save import ModelParts
    from .source import open_tensors
    from .tokenizer import find_chat_template

    family, config = run.family, run.model_config
    shapes = {name: tuple(p.shape) for name, p in parameters(build_empty(family, config)).items()}
    tensors = open_tensors(source)
    tensors.check_floats()
    return ModelParts(
        family=family,
        config=config,
        tensors=open_logical(family, config, tensors, shapes),
        tokenizer=load_own_tokenizer(run, source),
        chat_template=find_chat_template(family, config, source),
        source=str(source),
    )


def load_own_tokenizer(run: Run, source: Path) -> Tokenizer:
    """Load the tokenizer that was named, or the one beside the weights.

    Raises:
        DataError: there is none, or it is malformed.
        RefusedError: it has more tokens than the model.
    """
    from .tokenizer import load_tokenizer

    chosen, limit = run.config.model.tokenizer_name_or_path, run.model_config.vocab_size
    try:
        tokenizer = load_tokenizer(run.family, run.model_config, source if chosen is None else Path(chosen))
    except DataError as error:
        if chosen is None and "--tokenizer_name_or_path" not in str(error):
            raise DataError(f"{error} Or name another folder with --tokenizer_name_or_path.") from error
        raise
    if chosen is not None and tokenizer.vocab_size > limit:
        reason = f"has {tokenizer.vocab_size} tokens, more than the {limit} of the model"
        remedy = "Give the tokenizer that the model was trained with."
        raise RefusedError(Problem("--tokenizer_name_or_path", chosen, reason, remedy))
    return tokenizer


def _count_foreign(run: Run) -> int:
    """Return how many tensors the result has: some hold several parameters."""
    from .weights import expand

    weight_map = run.family.weight_map(run.model_config, "hf")
    assert weight_map is not None, "a family states its names in the hf layout"
    return sum(len(step.theirs) for step in expand(weight_map, run.model_config.num_layers))


def _progress(*, quiet: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty())


def _counter(bars: Progress, what: str, total: int) -> Callable[[str], None]:
    """Return a function that moves a bar of its own by one."""
    bar = bars.add_task(what, total=total)

    def count(name: str) -> None:
        bars.advance(bar)

    return count
