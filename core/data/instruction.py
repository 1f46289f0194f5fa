"""Instruction data: files of records, encoded once, in a seeded order."""

from __future__ import annotations

import array
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from ..errors import DataError, Problem, RefusedError
from .conversation import read_conversation
from .encoding import Encoder, to_sample
from .order import shuffled_place
from .packing import join, pack_in_order
from .progress import progress
from .records import BadRecords, read_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..run import Run
    from .chat import ChatTemplate
    from .sample import Sample, SampleSource
    from .tokenizer import Tokenizer

logger = logging.getLogger("llm_run.data")
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class EncodedRecords:
    """All records of a data set, end to end."""

    ids: np.ndarray
    """int32."""
    supervised: np.ndarray
    """bool, as long as ``ids``."""
    starts: np.ndarray
    """int64 [records + 1]."""

    def sample(self, record: int) -> Sample:
        """Return one record with shifted labels."""
        part = slice(self.starts[record], self.starts[record + 1])
        return to_sample(self.ids[part], self.supervised[part])


class InstructionSource:
    """Encoded records, alone or several in a row, shuffled anew in every epoch (a ``SampleSource``)."""

    def __init__(
        self, records: EncodedRecords, rows: Sequence[tuple[int, int]], *, seed: int | None, max_length: int
    ) -> None:
        """Order the rows.

        Args:
            records: what the rows are made of.
            rows: records [first, last) of each row.
            seed: of the order; ``None`` keeps that of the files.
            max_length: longest row in tokens, for the fingerprint.
        """
        self._records = records
        self._rows = rows
        self._seed = seed
        self.epoch_size = len(rows)
        digest = hashlib.sha256(f"instruction {seed} {max_length} {len(rows)} {rows[-1]}".encode())
        for part in (records.ids, records.supervised, records.starts):
            digest.update(part.tobytes())
        self.fingerprint = digest.hexdigest()

    def sample(self, position: int) -> Sample:
        """Return the row at a global position."""
        size = self.epoch_size
        row = position % size if self._seed is None else shuffled_place(position, size, self._seed)
        first, last = self._rows[row]
        samples = [self._records.sample(record) for record in range(first, last)]
        return samples[0] if len(samples) == 1 else join(samples)


def open_instruction_data(
    run: Run, tokenizer: Tokenizer, template: ChatTemplate | None
) -> tuple[SampleSource | None, SampleSource | None]:
    """Read, check and encode the training and the evaluation records of a run.

    Args:
        run: names the files, lengths and seed.
        tokenizer: the model's.
        template: writes conversations; ``None``: question and answer simply follow each other.

    Returns:
        The source of training, and that of evaluation; ``None`` for what the run does not do.

    Raises:
        RefusedError: options contradict each other or one is missing.
        DataError: a file is missing, a record is malformed (unless those are skipped), or nothing would be learnt.
    """
    data, training = run.config.data, run.config.training
    _check_options(run)
    train_files, dev_files = find_files(data.dataset_name_or_path, data.eval_dataset)
    encoder = Encoder(tokenizer, template, data.src_length, data.max_length)
    train: InstructionSource | None = None
    evaluation: InstructionSource | None = None
    shown = not training.disable_tqdm
    policy = cast('Literal["error", "skip"]', data.on_bad_record)
    if training.do_train:
        if not train_files:
            looked = "Looked for train.json and train.jsonl."
            raise DataError(f"{data.dataset_name_or_path}: has no training records. {looked}")
        train = _open(train_files, encoder, policy, shown, seed=training.seed, packed=data.zero_padding)
    if training.do_eval or training.evaluation_strategy != "no":
        if not dev_files:
            remedy = "Give them as --eval_dataset, or turn do_eval and evaluation_strategy off."
            raise DataError(f"{data.dataset_name_or_path}: has no evaluation records. {remedy}")
        evaluation = _open(dev_files, encoder, policy, shown, seed=None, packed=data.zero_padding)
    return train, evaluation


def _check_options(run: Run) -> None:
    data = run.config.data
    if data.dataset_name_or_path is None and data.eval_dataset is None:
        raise RefusedError(Problem("--dataset_name_or_path", "", "is missing", "Give a folder or a file of records."))
    if data.src_length >= data.max_length:
        reason = f"leaves no room for an answer within max_length {data.max_length}"
        remedy = "Give a smaller src_length or a larger max_length."
        raise RefusedError(Problem("--src_length", str(data.src_length), reason, remedy))


def find_files(dataset: str | None, eval_dataset: str | None) -> tuple[list[Path], list[Path]]:
    """Return the files of training and of evaluation.

    ``dataset`` is a file with training records, or a folder that holds ``train`` and ``dev`` as files with a suffix
    of ``SUFFIXES`` or as folders of such files.

    Raises:
        DataError: a path does not exist, or a folder holds neither.
    """
    train: list[Path] = []
    dev: list[Path] = []
    if dataset is not None:
        path = Path(dataset)
        if path.is_dir():
            train, dev = _part(path, "train"), _part(path, "dev")
            if not train and not dev:
                raise DataError(
                    f"{path}: holds no records. Looked for train and dev, as files ({', '.join(SUFFIXES)}) "
                    "or as folders of such files."
                )
        else:
            train = [_existing(path, "--dataset_name_or_path")]
    if eval_dataset is not None:
        path = Path(eval_dataset)
        dev = (_part(path, "dev") or _folder_files(path)) if path.is_dir() else [_existing(path, "--eval_dataset")]
    return train, dev


def _existing(path: Path, option: str) -> Path:
    if not path.is_file():
        raise DataError(f"{option}: {path} is neither a file nor a folder. Named data sets are not downloaded.")
    return path


def _part(folder: Path, name: str) -> list[Path]:
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return [folder / f"{name}{suffix}"]
    return _folder_files(folder / name) if (folder / name).is_dir() else []


def _folder_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file())


def _open(
    files: Sequence[Path],
    encoder: Encoder,
    policy: Literal["error", "skip"],
    shown: bool,
    *,
    seed: int | None,
    packed: bool,
) -> InstructionSource:
    records = encode_files(files, encoder, policy, shown)
    lengths = [int(size) - 1 for size in np.diff(records.starts)]
    rows = (
        pack_in_order(lengths, encoder.max_length) if packed else [(place, place + 1) for place in range(len(lengths))]
    )
    if packed:
        logger.info(
            "zero_padding: %d records in %d rows, %.1f %% of their tokens are padding",
            len(lengths),
            len(rows),
            100 * (1 - sum(lengths) / (len(rows) * encoder.max_length)),
        )
    return InstructionSource(records, rows, seed=seed, max_length=encoder.max_length)


def encode_files(
    files: Sequence[Path], encoder: Encoder, policy: Literal["error", "skip"] = "error", shown: bool = False
) -> EncodedRecords:
    """Encode all records of ``files``, in their order, and say what came of them.

    Raises:
        DataError: a record is malformed and ``policy`` is ``error``, or no record is left.
    """
    ids, supervised, starts = array.array("i"), bytearray(), array.array("q", [0])
    bad = BadRecords(policy)
    cut = 0
    title = f"reading {files[0].name}" + (" ..." if len(files) > 1 else "")
    with progress(title, None, shown=shown) as advance:
        for path in files:
            for record in read_records(path, bad):
                advance(1)
                try:
                    encoded = encoder.encode(read_conversation(record.fields))
                except DataError as error:
                    bad.handle(DataError(f"{record.place}: {error}"))
                    continue
                cut += encoded.cut
                ids.extend(encoded.ids)
                supervised.extend(encoded.supervised)
                starts.append(len(ids))
    names = ", ".join(map(str, files))
    if len(starts) == 1:
        raise DataError(f"{names}: no record is left to train on. {' '.join(bad.messages)}".rstrip())
    records = EncodedRecords(
        np.frombuffer(ids, dtype=np.int32), np.frombuffer(supervised, dtype=bool), np.frombuffer(starts, dtype=np.int64)
    )
    _report(records, names, cut, bad)
    return records


def _report(records: EncodedRecords, names: str, cut: int, bad: BadRecords) -> None:
    sizes = np.diff(records.starts)
    logger.info(
        "%s: %d records, %d tokens, %.1f %% of them learnt, the longest has %d; %d lost a part, %d were skipped",
        names,
        len(sizes),
        len(records.ids),
        100 * records.supervised.mean(),
        int(sizes.max()),
        cut,
        bad.count,
    )
    for message in bad.messages:
        logger.warning("skipped: %s", message)
