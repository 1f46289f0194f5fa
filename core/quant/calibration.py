"""Calibration and evaluation data: records of any known format, or plain text, as padded batches."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ..data.collate import collate
from ..data.encoded_records import encode_files
from ..data.encoding import Encoded, Encoder
from ..data.instruction import find_files, find_part
from ..errors import DataError, Problem, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..data.chat import ChatTemplate
    from ..data.encoded_records import EncodedRecords
    from ..data.sample import Batch
    from ..data.tokenizer import Tokenizer
    from ..run import Run

_log = logging.getLogger("llm_run.quant")

FEWEST_TOKENS = 128
"""Of calibration; below, the statistics of an input are those of a few words."""
MOST_EVALUATION_BATCHES = 32
"""Where nobody says how many: hidden states of all of them are held at once."""


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """What a model is quantized by, and what it is compared on."""

    calibration: list[Batch]
    evaluation: list[Batch]
    calibration_files: list[Path]
    evaluation_files: list[Path]


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Encodes records of conversations as training does, and records of plain text piece by piece."""

    conversations: Encoder

    @property
    def max_length(self) -> int:
        """Longest row in tokens."""
        return self.conversations.max_length

    @property
    def group_size(self) -> int:
        """Rows of a record are independent of each other."""
        return 1

    def encode_record(self, fields: Mapping[str, Any]) -> list[Encoded]:
        """Encode a record; ``{"text": ...}`` becomes as many rows as it fills."""
        if "text" not in fields or fields.keys() & {"messages", "conversations", "src", "instruction"}:
            return self.conversations.encode_record(fields)
        text = fields["text"]
        if not isinstance(text, str):
            raise DataError(f"text: must be text, not a {type(text).__name__}.")
        tokenizer = self.conversations.tokenizer
        opening = tokenizer.prompt([])
        ids, room = tokenizer.encode(text), self.max_length - len(opening)
        if len(ids) < 2 or room < 2:
            raise DataError("text: has fewer than two tokens, of which one could be predicted from the other.")
        pieces = [ids[first : first + room] for first in range(0, len(ids), room)]
        return [
            Encoded(opening + piece, [False] * len(opening) + [True] * len(piece), False)
            for piece in pieces
            if len(piece) > 1
        ]


def open_calibration(
    run: Run, tokenizer: Tokenizer, template: ChatTemplate | None, *, steps_option: str, num_batches: int
) -> CalibrationData:
    """Read the records of ``quant`` (or else ``train``) and of ``dev``.

    Args:
        run: names the files, lengths, batch sizes and seed.
        tokenizer: the model's.
        template: writes conversations.
        steps_option: the option that says how many batches are wanted.
        num_batches: how many; 0: the method looks at no data.

    Raises:
        RefusedError: there are fewer samples than were asked for.
        DataError: a file is missing, a record is malformed, or there is next to nothing in it.
    """
    data, training = run.config.data, run.config.training
    assert data.dataset_name_or_path is not None, "core/config/check.py asks for it"
    calibration_files, evaluation_files = _find_files(data.dataset_name_or_path, data.eval_dataset)
    if not calibration_files and (num_batches or not evaluation_files):
        raise DataError(f"{data.dataset_name_or_path}: holds no records to learn from. Looked for quant and train.")
    policy = cast('Literal["error", "skip"]', data.on_bad_record)
    encoder = TextEncoder(Encoder(tokenizer, template, data.src_length, data.max_length))
    shown = not training.disable_tqdm
    calibration: list[Batch] = []
    if num_batches:
        records = encode_files(calibration_files, encoder, policy, shown)
        size = training.per_device_train_batch_size
        is_said = run.config.origins.get(steps_option, "default") != "default"
        _check_amount(records, calibration_files, steps_option, num_batches, size, is_said=is_said)
        order = np.random.default_rng(training.seed).permutation(records.count)
        calibration = _batches(run, tokenizer, records, order, size)[:num_batches]
    if not evaluation_files:
        _log.warning("no evaluation records: the quantized model is compared on its calibration records")
    compared_on = evaluation_files or calibration_files
    evaluated = encode_files(compared_on, encoder, policy, shown)
    evaluation = _batches(run, tokenizer, evaluated, None, training.per_device_eval_batch_size)
    return CalibrationData(
        calibration, _evaluation(run, evaluation), calibration_files if num_batches else [], compared_on
    )


def _find_files(dataset: str, eval_dataset: str | None) -> tuple[list[Path], list[Path]]:
    """Return the files of calibration and of evaluation; one of them may be none."""
    path = Path(dataset)
    quant = find_part(path, "quant") if path.is_dir() else []
    if quant:
        return quant, find_files(None, eval_dataset)[1] or find_part(path, "dev")
    return find_files(dataset, eval_dataset)


def _check_amount(
    records: EncodedRecords, files: Sequence[Path], option: str, num_batches: int, size: int, *, is_said: bool
) -> None:
    names, num_records = ", ".join(map(str, files)), records.count
    if len(records.ids) < FEWEST_TOKENS:
        raise DataError(
            f"{names}: has {len(records.ids)} tokens in all, too few to calibrate with. "
            f"Give at least {FEWEST_TOKENS}; some hundred samples are usual."
        )
    if num_records >= num_batches * size:
        return
    if is_said:
        reason = f"needs {num_batches * size} samples ({size} each), and {names} holds {num_records}"
        remedy = f"Give more samples, or a smaller {option} or per_device_train_batch_size."
        raise RefusedError(Problem(f"--{option}", str(num_batches), reason, remedy))
    _log.warning("%s: holds %d samples, fewer than the %d of %s", names, num_records, num_batches * size, option)


def _batches(
    run: Run, tokenizer: Tokenizer, records: EncodedRecords, order: np.ndarray | None, size: int
) -> list[Batch]:
    places = np.arange(records.count) if order is None else order
    return [
        collate(
            [records.samples(int(place))[0] for place in places[first : first + size]],
            run.model_config,
            tokenizer.pad_id,
        )
        for first in range(0, len(places), size)
    ]


def _evaluation(run: Run, batches: list[Batch]) -> list[Batch]:
    limit = run.config.training.max_evaluate_steps
    if limit >= 0:
        return batches[: max(1, limit)]
    if len(batches) > MOST_EVALUATION_BATCHES:
        text = "compared on the first %d of %d batches; --max_evaluate_steps says otherwise"
        _log.info(text, MOST_EVALUATION_BATCHES, len(batches))
    return batches[:MOST_EVALUATION_BATCHES]
