"""``--task merge_shards``: what the ranks of a training run have saved, as one Hugging Face model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Problem, RefusedError, WeightError
from .fields import CHECKPOINT, NAMES, read_fields
from .rank_files import PATTERN, find_rank_files, open_rank_files
from .source import find_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..run import Run
    from .save import ModelParts
    from .transforms import Shape

_SHOWN = 5


def run(run: Run) -> int:
    """Merge, read the result back, and say where it is.

    Tensors are joined one at a time while they are written: the whole model is never in memory.

    Raises:
        RefusedError: the output folder is in use, or what is to be merged is no such thing.
        WeightError: a file is missing, damaged or unsafe, or does not fit the model or the other files. Nothing is
            left then.
        CheckpointError: the checkpoint is not what was written.
        DataError: the tokenizer is missing or malformed.
    """
    from .task import write_with_progress

    source, target = run.config.model.model_name_or_path, run.config.convert.output_path
    assert source and target, "core/config/check.py asks for them"
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RefusedError(Problem("--output_path", str(folder), "is not an empty folder", "Give a new one."))
    place = Path(source)
    parts = _open(run, place.parent if place.is_file() and place.match(PATTERN) else place)
    report = write_with_progress(run, parts, folder)
    written = sum(file["bytes"] for name, file in report["files"].items() if name.endswith(".safetensors"))
    told = report["merged"]
    print(
        f"{folder}: {report['round_trip']['tensors']} tensors from {len(told['from'])} files, {written / 1e9:.2f} GB, "
        f"read back equal to the bit. See report.json."
    )
    return 0


def _open(run: Run, source: Path) -> ModelParts:
    """Open the files of all ranks, hold them against the model, and load what goes with them."""
    from .load import build_empty
    from .logical import parameters

    shapes = {name: tuple(p.shape) for name, p in parameters(build_empty(run.family, run.model_config)).items()}
    if (source / CHECKPOINT).is_file():
        return _open_checkpoint(run, source, shapes)
    if source.is_dir() and any(source.glob(PATTERN)):
        return _open_ranks(run, source, shapes)
    raise RefusedError(_nothing_to_merge(source))


def _nothing_to_merge(source: Path) -> Problem:
    """Say what a path is instead."""
    key, value = "--model_name_or_path", str(source)
    try:
        reason = f"is whole already: {find_weights(source).name}"
        return Problem(key, value, reason, "Use --task convert for another format.")
    except WeightError:
        reason = f"is neither a checkpoint nor a folder with {PATTERN} and {NAMES[0]}"
        return Problem(key, value, reason, "Name one of them.")


def _open_checkpoint(run: Run, source: Path, shapes: Mapping[str, Shape]) -> ModelParts:
    """Open a checkpoint that a run of any layout has saved; its files are verified by their SHA-256."""
    from ..trainer.checkpoint import read_checkpoint
    from ..trainer.checkpoint_weights import CheckpointWeights
    from .run_folder import tokenizer_and_template
    from .save import ModelParts

    checkpoint = read_checkpoint(source)
    task = str(checkpoint.identity.get("task"))
    if any(name.startswith("adapter.") for name in checkpoint.identity):
        reason = f"is of --task {task} and holds an adapter only, which is the same on every rank"
        remedy = "Let the run come to its end: the adapter is in its --output_dir then."
        raise RefusedError(Problem("--model_name_or_path", str(source), reason, remedy))
    index, prefix = checkpoint.reader.index, "model/"
    held = {name.removeprefix(prefix): entry.shape for name, entry in index.items() if name.startswith(prefix)}
    problems = [f"{name} is missing" for name in shapes if name not in held]
    problems += [f"{name} is unknown" for name in held if name not in shapes]
    problems += [
        f"{name} has shape {list(held[name])} instead of {list(shape)}"
        for name, shape in shapes.items()
        if held.get(name, shape) != shape
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise WeightError(f"{source}: does not fit the model: {'; '.join(problems[:_SHOWN])}{more}.")
    files = {piece.file for name in shapes for piece in index[prefix + name].slices}
    tokenizer, template = tokenizer_and_template(run, source, task)
    # In the model's order: parameters that are one tensor elsewhere are then read one after the other.
    tensors = CheckpointWeights(checkpoint.reader, shapes)
    return ModelParts(
        family=run.family, config=run.model_config, tensors=tensors, tokenizer=tokenizer, chat_template=template,
        source=str(source), facts={"merged": {"step": checkpoint.state.step, "from": sorted(files)}},
    )  # fmt: skip


def _open_ranks(run: Run, source: Path, shapes: Mapping[str, Shape]) -> ModelParts:
    """Open the files that PaddleNLP's ranks have saved."""
    from .rank_tensors import open_ranks
    from .save import ModelParts
    from .task import load_own_tokenizer
    from .tokenizer import find_chat_template

    sources = open_rank_files(source, read_fields(source))
    files = sorted(path.name for path in find_rank_files(source).values())
    tensors = open_ranks(run.family, run.model_config, sources, shapes)
    told: dict[str, Any] = {"tensor_parallel_degree": len(sources), "from": files, "found": tensors.facts}
    return ModelParts(
        family=run.family, config=run.model_config, tensors=tensors, tokenizer=load_own_tokenizer(run, source),
        chat_template=find_chat_template(run.family, run.model_config, source), source=str(source),
        facts={"merged": told},
    )  # fmt: skip
