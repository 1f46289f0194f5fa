"""``--task data``: text to token files."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import DataError, Problem, RefusedError
from .documents import find_text_files, read_documents
from .progress import progress
from .records import BadRecords
from .token_writer import TokenFileWriter
from .tokenize import tokenize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..registry.facts import ModelConfig
    from ..run import Run
    from .tokenizer import Tokenizer

logger = logging.getLogger("llm_run.data")
WORTH_A_PROCESS = 2 << 20
"""Bytes of text for which another process pays: starting one takes about a second."""


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """Where a tokenizer comes from: small and picklable, so that every process can load its own."""

    family: str
    config: ModelConfig
    path: Path

    def __call__(self) -> Tokenizer:
        """Load it."""
        from ..convert.tokenizer import load_tokenizer
        from ..registry.manager import load_family

        return load_tokenizer(load_family(self.family), self.config, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What becomes a token file, and how."""

    files: Sequence[Path]
    """Text and JSONL files, read in this order."""
    prefix: Path
    """Of the token files."""
    json_key: str = "text"
    """Of the text in a record."""
    append_eos: bool = True
    """End every document with the end-of-text token."""
    most: int | None = None
    """Documents to stop after."""
    workers: int | None = None
    """Processes; ``None``: one a core, and only this one for little text."""
    bad: BadRecords = field(default_factory=BadRecords)
    shown: bool = False
    """Show a progress bar."""


def run(run: Run) -> int:
    """Tokenize ``--input_path`` into ``<output_prefix>.bin`` and ``.idx``, with a report in ``<output_prefix>.json``.

    Raises:
        RefusedError: options are missing or contradict each other.
        DataError: a file is missing, or a record is malformed (unless those are skipped).
    """
    data = run.config.data
    input_path, prefix, path = _required(run)
    source = TokenizerSource(run.config.family, run.model_config, path)
    tokenizer = source()
    if data.append_eos and tokenizer.eos_id is None:
        reason = f"but the tokenizer in {path} has no end-of-text token"
        raise RefusedError(Problem("--append_eos", "true", reason, "Set it to false."))
    job = Job(
        files=find_text_files(input_path),
        prefix=prefix,
        json_key=data.json_key,
        append_eos=data.append_eos,
        most=data.max_doc_num,
        workers=data.workers,
        bad=BadRecords(cast('Literal["error", "skip"]', data.on_bad_record)),
        shown=not run.config.training.disable_tqdm,
    )
    report = {"tokenizer": str(path), **write_token_files(job, tokenizer, source)}
    temporary = Path(f"{prefix}.json.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(f"{prefix}.json")
    return 0


def _required(run: Run) -> tuple[Path, Path, Path]:
    """Return input, output prefix and tokenizer.

    Raises:
        RefusedError: with all that are missing.
    """
    data = run.config.data
    options = {
        "--input_path": (data.input_path, "Give a text or JSONL file, or a folder of them."),
        "--output_prefix": (data.output_prefix, "Give the path of the token files without suffix."),
        "--tokenizer_name_or_path": (run.config.model.tokenizer_name_or_path, "Give the directory of the tokenizer."),
    }
    missing = [Problem(key, "", "is missing", remedy) for key, (value, remedy) in options.items() if value is None]
    if missing:
        raise RefusedError(*missing)
    input_path, prefix, tokenizer = (Path(value) for value, _ in options.values() if value is not None)
    return input_path, prefix, tokenizer


def write_token_files(job: Job, tokenizer: Tokenizer, make_tokenizer: Callable[[], Tokenizer]) -> dict[str, Any]:
    """Tokenize files into ``<prefix>.bin`` and ``.idx``, which appear whole or not at all.

    Args:
        job: what is read and written.
        tokenizer: for this process.
        make_tokenizer: loads the same one in others; must be picklable.

    Returns:
        The report: what was read, with what, and what came out.

    Raises:
        DataError: a file cannot be read, or a record is malformed and ``job.bad`` says to stop; or there is no text.
    """
    started = time.perf_counter()
    size = sum(file.stat().st_size for file in job.files)
    workers = job.workers or max(1, min(len(os.sched_getaffinity(0)), size // WORTH_A_PROCESS))
    title = f"tokenizing {job.files[0].name}" + (" ..." if len(job.files) > 1 else "")
    with TokenFileWriter(job.prefix, tokenizer.vocab_size) as writer:
        with progress(title, size, shown=job.shown) as advance:
            texts = (text for file in job.files for text in read_documents(file, job.json_key, job.bad, advance))
            documents = itertools.islice(texts, job.most)
            for tokens, sizes in tokenize(documents, make_tokenizer, append_eos=job.append_eos, workers=workers):
                writer.add(tokens, sizes)
        if writer.num_documents == 0:
            raise DataError(f"{job.files[0]}: no text was found. {' '.join(job.bad.messages)}".rstrip())
        digest = writer.finish()
    seconds = time.perf_counter() - started
    message = "%s: %d documents, %d tokens, %d records skipped; %.1f s, %.0f tokens/s in %d process(es)"
    made = (writer.num_documents, writer.num_tokens, job.bad.count)
    logger.info(message, job.prefix, *made, seconds, writer.num_tokens / seconds, workers)
    for skipped in job.bad.messages:
        logger.warning("skipped: %s", skipped)
    return _report(job, tokenizer, writer, digest)


def _report(job: Job, tokenizer: Tokenizer, writer: TokenFileWriter, digest: str) -> dict[str, Any]:
    return {
        "tokenizer_sha256": tokenizer_hash(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "append_eos": job.append_eos,
        "sources": [str(file) for file in job.files],
        "documents": writer.num_documents,
        "tokens": writer.num_tokens,
        "skipped_records": job.bad.count,
        "skipped_examples": job.bad.messages,
        "dtype": str(writer.dtype),
        "bin_sha256": digest,
    }


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Return a hash of the files that a tokenizer consists of."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        for path in sorted(Path(folder).iterdir()):
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()
