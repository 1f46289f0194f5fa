"""``--input_dir`` and ``--split``: which token files, with which weight, and which of their documents."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, Problem, RefusedError
from .token_file import SUFFIXES, find_prefixes

DEV_NAME = re.compile(r"(^|[._-])(dev|valid|validation|eval)([._-]|$)")
"""A token file of such a name in a folder is evaluation data, all of it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One token file and its weight in a blend."""

    prefix: Path
    weight: float


def find_parts(input_dir: str) -> tuple[list[Part], list[Part]]:
    """Return the token files of ``--input_dir``: those that are split, and those that are evaluation data as a whole.

    Raises:
        RefusedError: the text is neither a folder, nor a prefix, nor weights and prefixes in turn.
        DataError: the folder holds no token files.
    """
    path = Path(input_dir)
    if path.is_dir():
        prefixes = find_prefixes(path)
        if not prefixes:
            raise DataError(
                f"--input_dir: {path} holds no token files ({', '.join(SUFFIXES)}). `--task data` makes them of text."
            )
        dev = [Part(prefix, 1.0) for prefix in prefixes if DEV_NAME.search(prefix.name)]
        return [Part(prefix, 1.0) for prefix in prefixes if not DEV_NAME.search(prefix.name)], dev
    if any(Path(f"{input_dir}{suffix}").is_file() for suffix in SUFFIXES):
        return [Part(path, 1.0)], []
    return _weighted(input_dir), []


def _weighted(input_dir: str) -> list[Part]:
    words = input_dir.split()
    if len(words) == 1:
        suffixes = " or ".join(f"{input_dir}{suffix}" for suffix in SUFFIXES)
        raise DataError(f"--input_dir: {input_dir} is neither a folder nor a prefix: there is no {suffixes}.")
    parts = []
    for weight, prefix in zip(words[::2], words[1::2], strict=False):
        if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", weight) or float(weight) <= 0 or len(words) % 2:
            raise RefusedError(
                Problem(
                    "--input_dir",
                    repr(input_dir),
                    "is neither a folder nor a prefix nor a blend",
                    "Write a blend as `weight prefix weight prefix ...`, weights above 0.",
                )
            )
        parts.append(Part(Path(prefix), float(weight)))
    return parts


def split_documents(split: str, count: int) -> list[range]:
    """Return the documents of training, evaluation and test, which follow each other in the file.

    Args:
        split: one to three shares with commas or slashes between, in any unit (``949,50,1``).
        count: documents of the file.

    Raises:
        RefusedError: the shares are no numbers, negative, or all 0.
    """
    try:
        shares = [float(share) for share in re.split("[,/]", split)]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= 3 or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise RefusedError(
            Problem(
                "--split",
                repr(split),
                "is not a split",
                "Write shares of training, evaluation and test with commas between, as in 949,50,1.",
            )
        )
    shares += [0.0] * (3 - len(shares))
    bounds = [0]
    for share in shares:
        bounds.append(bounds[-1] + round(share / sum(shares) * count))
    # Rounding is settled as Megatron settles it: every bound moves by what the last one is off.
    off = bounds[-1] - count
    bounds = [0, *(max(0, bound - off) for bound in bounds[1:])]
    return [range(start, max(start, stop)) for start, stop in itertools.pairwise(bounds)]
