"""Instruction data: files of records, encoded once, in a seeded order."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from ..errors import DataError, Problem, RefusedError
from .encoded_records import encode_files
from .encoding import Encoder
from .lazy_records import LazyRecords
from .order import shuffled_place
from .packing import Rows, join, pack_best_fit, pack_in_order
from .preference_encoding import PreferenceEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..run import Run
    from .chat import ChatTemplate
    from .encoded_records import RecordStore
    from .encoding import RecordEncoder
    from .sample import Sample, SampleSource
    from .tokenizer import Tokenizer

logger = logging.getLogger("llm_run.data")
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


class InstructionSource:
    """Encoded records, alone or several in a row, shuffled anew in every epoch (a ``SampleSource``)."""

    def __init__(self, records: RecordStore, rows: Rows, *, seed: int | None, max_length: int) -> None:
        """Order the rows.

        Args:
            records: what the rows are made of.
            rows: the records of each row.
            seed: of the order; ``None`` keeps that of the files.
            max_length: longest row in tokens, for the fingerprint.
        """
        self._records = records
        self._rows = rows
        self._seed = seed
        self.epoch_size = len(rows)
        digest = hashlib.sha256(f"instruction {seed} {max_length} {records.digest}".encode())
        for part in (rows.members, rows.starts):
            digest.update(part.tobytes())
        self.fingerprint = digest.hexdigest()

    def sample(self, position: int) -> Sample:
        """Return the row at a global position."""
        size = self.epoch_size
        row = position % size if self._seed is None else shuffled_place(position, size, self._seed)
        samples = [sample for record in self._rows[row] for sample in self._records.samples(record)]
        return samples[0] if len(samples) == 1 else join(samples)


def open_instruction_data(
    run: Run, tokenizer: Tokenizer, template: ChatTemplate | None
) -> tuple[SampleSource | None, SampleSource | None]:
    """Read, check and encode the training and the evaluation records of a run.

    Args:
        run: names the files, lengths and seed, and the task: ``dpo`` reads pairs of answers.
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
    encoder = _encoder(run, tokenizer, template)
    train_files, dev_files = find_files(data.dataset_name_or_path, data.eval_dataset)
    train: InstructionSource | None = None
    evaluation: InstructionSource | None = None
    if training.do_train:
        if not train_files:
            looked = "Looked for train.json and train.jsonl."
            raise DataError(f"{data.dataset_name_or_path}: has no training records. {looked}")
        train = _open(run, train_files, encoder, seed=training.seed)
    if training.do_eval or training.evaluation_strategy != "no":
        if not dev_files:
            remedy = "Give them as --eval_dataset, or turn do_eval and evaluation_strategy off."
            raise DataError(f"{data.dataset_name_or_path}: has no evaluation records. {remedy}")
        evaluation = _open(run, dev_files, encoder, seed=None)
    return train, evaluation


def _check_options(run: Run) -> None:
    data = run.config.data
    if data.dataset_name_or_path is None and data.eval_dataset is None:
        raise RefusedError(Problem("--dataset_name_or_path", "", "is missing", "Give a folder or a file of records."))
    if data.src_length >= data.max_length:
        reason = f"leaves no room for an answer within max_length {data.max_length}"
        remedy = "Give a smaller src_length or a larger max_length."
        raise RefusedError(Problem("--src_length", str(data.src_length), reason, remedy))


def _encoder(run: Run, tokenizer: Tokenizer, template: ChatTemplate | None) -> RecordEncoder:
    data = run.config.data
    encoder = Encoder(tokenizer, template, data.src_length, data.max_length)
    return PreferenceEncoder(encoder) if run.config.task == "dpo" else encoder


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
            train, dev = find_part(path, "train"), find_part(path, "dev")
            if not train and not dev:
                raise DataError(
                    f"{path}: holds no records. Looked for train and dev, as files ({', '.join(SUFFIXES)}) "
                    "or as folders of such files."
                )
        else:
            train = [_existing(path, "--dataset_name_or_path")]
    if eval_dataset is not None:
        path = Path(eval_dataset)
        dev = (find_part(path, "dev") or _folder_files(path)) if path.is_dir() else [_existing(path, "--eval_dataset")]
    return train, dev


def _existing(path: Path, option: str) -> Path:
    if not path.is_file():
        raise DataError(f"{option}: {path} is neither a file nor a folder. Named data sets are not downloaded.")
    return path


def find_part(folder: Path, name: str) -> list[Path]:
    """Return the files of one part (``train``, ``dev``, ``quant``) of a data set; none where it has no such part."""
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return [folder / f"{name}{suffix}"]
    return _folder_files(folder / name) if (folder / name).is_dir() else []


def _folder_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file())


def _open(run: Run, files: Sequence[Path], encoder: RecordEncoder, *, seed: int | None) -> InstructionSource:
    data = run.config.data
    records = _store(run, files, encoder)
    if not data.zero_padding:
        return InstructionSource(records, Rows.of_one_each(records.count), seed=seed, max_length=encoder.max_length)
    pack = pack_best_fit if data.packing == "best_fit" else pack_in_order
    lengths, longest = records.lengths(), encoder.group_size * encoder.max_length
    rows = pack(lengths, longest)
    padding = 100 * (1 - sum(lengths) / (len(rows) * longest))
    logger.info(
        "zero_padding: %d records in %d rows, %.1f %% of their tokens are padding", len(lengths), len(rows), padding
    )
    return InstructionSource(records, rows, seed=seed, max_length=encoder.max_length)


def _store(run: Run, files: Sequence[Path], encoder: RecordEncoder) -> RecordStore:
    data, shown = run.config.data, not run.config.training.disable_tqdm
    policy = cast('Literal["error", "skip"]', data.on_bad_record)
    if not data.lazy:
        return encode_files(files, encoder, policy, shown)
    folder = Path(data.data_cache) if data.data_cache else None
    return LazyRecords(
        files, encoder, policy=policy, measures=data.zero_padding, cache_folder=folder, shown=shown
    )  # fmt: skip
