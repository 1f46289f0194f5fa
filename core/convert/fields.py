"""What a model says of its own shape: ``config.json``, or the header of a GGUF file in the same spelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import Problem, RefusedError

NAMES = ("config.json", "model_config.json")
"""Hugging Face's name, and PaddleNLP's older one."""
CHECKPOINT = "trainer.json"
"""What a checkpoint of a training run has instead; the fields are among what a run must share to go on from it."""
SHAPE = "model."
"""What their names begin with there."""


def read_fields(path: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a model directory, or the like of a GGUF file.

    Args:
        path: a model directory, a GGUF file, or a weight file that lies beside its ``config.json``.

    Raises:
        RefusedError: there is no configuration, or it is malformed; the text names the file.
        WeightError: the GGUF file is damaged.
    """
    if path.suffix == ".gguf" and path.is_file():
        return _of_gguf(path)
    if not path.exists():
        raise RefusedError(Problem(str(path), "", "does not exist", "Give a model directory or a GGUF file."))
    directory = path if path.is_dir() else path.parent
    for name in NAMES:
        if (directory / name).is_file():
            return _of_json(directory / name)
    if (directory / CHECKPOINT).is_file():
        return _of_checkpoint(directory / CHECKPOINT)
    ggufs = sorted(directory.glob("*.gguf"))
    if len(ggufs) == 1:
        return _of_gguf(ggufs[0])
    remedy = f"Name one of its {len(ggufs)} GGUF files." if ggufs else "Give a model directory or a GGUF file."
    checkpoints = [path for path in directory.glob("checkpoint-*") if (path / CHECKPOINT).is_file()]
    if checkpoints:
        newest = max(checkpoints, key=lambda path: path.stat().st_mtime)
        remedy = f"Its newest checkpoint is {newest}; --task merge_shards makes a model directory of it."
    raise RefusedError(Problem(str(directory), "", f"has no {NAMES[0]}", remedy))


def quantization_fields(path: Path) -> dict[str, Any] | None:
    """Return the ``quantization_config`` of the directory that ``path`` is or lies in; ``None`` without one."""
    directory = path if path.is_dir() else path.parent
    try:
        fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # what the configuration lacks is told by whoever needs it
    found = fields.get("quantization_config") if isinstance(fields, dict) else None
    return found if isinstance(found, dict) else None


def _of_gguf(path: Path) -> dict[str, Any]:
    from .gguf_fields import translate
    from .gguf_header import read_header

    return translate(read_header(path))


def _of_checkpoint(file: Path) -> dict[str, Any]:
    identity = _read_object(file).get("identity")
    fields = identity if isinstance(identity, dict) else {}
    return {name.removeprefix(SHAPE): value for name, value in fields.items() if name.startswith(SHAPE)}


def _of_json(file: Path) -> dict[str, Any]:
    return _flat(_read_object(file))


def _read_object(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusedError(Problem(str(file), "", f"is not valid JSON: {error}", "Restore the file.")) from error
    if not isinstance(fields, dict):
        raise RefusedError(Problem(str(file), "", "is not a JSON object", "Restore the file."))
    return fields


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Lift the fields of PaddleNLP's oldest files, where they are arguments of a class, to where others have them."""
    arguments = fields.get("init_args")
    inner = [item for item in arguments if isinstance(item, dict)] if isinstance(arguments, list) else []
    if not inner:
        return fields
    outer = {name: value for name, value in fields.items() if name not in ("init_args", "init_class")}
    said = {"architectures": [fields["init_class"]]} if isinstance(fields.get("init_class"), str) else {}
    return {**inner[0], **said, **outer}
