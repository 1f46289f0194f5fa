"""Pretraining data of a run: token files, split into training and evaluation, blended by weight."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, Problem, RefusedError
from .blend import Blend
from .corpus import Corpus
from .index_cache import IndexCache, fingerprint_file
from .progress import progress
from .split import find_parts, split_documents
from .token_file import TokenFile, open_token_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..run import Run
    from .sample import SampleSource
    from .split import Part

logger = logging.getLogger("llm_run.data")
SCAN_TOKENS = 1 << 24
"""Tokens that are looked at together when the largest id of a file is searched."""
USES = {0: "training", 1: "evaluation"}


def open_pretraining_data(run: Run, num_samples: int) -> tuple[SampleSource | None, SampleSource | None]:
    """Open the token files of a run.

    Args:
        run: names the files, the split, the length of samples and the seed.
        num_samples: that training will read; their order is computed now rather than when they are asked for.

    Returns:
        The source of training, and that of evaluation; ``None`` for what the run does not do.

    Raises:
        RefusedError: an option is missing or malformed.
        DataError: a file is missing or malformed, holds token ids that the model lacks, or too few tokens.
    """
    data, training = run.config.data, run.config.training
    if data.input_dir is None:
        raise RefusedError(Problem("--input_dir", "", "is missing", "Give a folder of token files (`--task data`)."))
    parts, dev_parts = find_parts(data.input_dir)
    train = evaluation = None
    if training.do_train:
        train = _open(run, parts, use=0, whole=bool(dev_parts))
        train.prepare(num_samples)
    if training.do_eval or training.evaluation_strategy != "no":
        evaluation = _open(run, dev_parts or parts, use=1, whole=bool(dev_parts))
        evaluation.prepare(evaluation.epoch_size)
    return train, evaluation


def _open(run: Run, parts: Sequence[Part], *, use: int, whole: bool) -> Corpus | Blend:
    """Open the share of every file that serves one use: 0 for training, 1 for evaluation."""
    data = run.config.data
    corpora = []
    for part in parts:
        source = _Source.open(part, data.data_cache)
        source.check_vocabulary(run.model_config.vocab_size, shown=not run.config.training.disable_tqdm)
        documents = range(len(source.file.sizes)) if whole else split_documents(data.split, len(source.file.sizes))[use]
        if not documents:
            raise DataError(
                f"{part.prefix}: --split {data.split} leaves none of its {len(source.file.sizes)} documents "
                f"for {USES[use]}."
            )
        corpus = Corpus(
            source.file,
            documents,
            length=data.max_length,
            seed=run.config.training.seed,
            file_hash=source.file_hash,
            cache=source.cache,
        )
        logger.info(
            "%s: %d documents for %s, %d samples of %d tokens in an epoch",
            part.prefix,
            len(documents),
            USES[use],
            corpus.epoch_size,
            data.max_length,
        )
        corpora.append(corpus)
    if not corpora:
        raise DataError(f"--input_dir: {data.input_dir} holds no token files for {USES[use]}, only for evaluation.")
    return corpora[0] if len(corpora) == 1 else Blend(corpora, [part.weight for part in parts])


@dataclass(frozen=True, slots=True)
class _Source:
    """An open token file with the hash of its content and the place where its orders are kept."""

    file: TokenFile
    file_hash: str
    cache: IndexCache

    @classmethod
    def open(cls, part: Part, folder: str | None) -> _Source:
        file = open_token_file(part.prefix)
        names = [Path(f"{part.prefix}{suffix}") for suffix in (".bin", ".idx", "_ids.npy", "_idx.npz")]
        file_hash = " ".join(fingerprint_file(name) for name in names if name.is_file())
        return cls(file, file_hash, IndexCache(Path(folder) if folder else part.prefix.parent / "index-cache"))

    def check_vocabulary(self, vocab_size: int, *, shown: bool) -> None:
        """Refuse a file with token ids that the model does not have, before the first step.

        Raises:
            DataError: there is such an id.
        """
        tokens = self.file.tokens
        if len(tokens) == 0:
            raise DataError(f"{self.file.prefix}: holds no tokens.")
        if np.iinfo(tokens.dtype).max < vocab_size and np.iinfo(tokens.dtype).min >= 0:
            return

        def scan() -> dict[str, np.ndarray]:
            parts = range(0, len(tokens), SCAN_TOKENS)
            bounds = []
            with progress(f"checking token ids of {self.file.prefix.name}", len(parts), shown=shown) as advance:
                for start in parts:
                    part = tokens[start : start + SCAN_TOKENS]
                    bounds += [int(part.min()), int(part.max())]
                    advance(1)
            return {"bounds": np.array([min(bounds), max(bounds)], dtype=np.int64)}

        lowest, highest = self.cache.get(f"token ids of {self.file_hash}", len(tokens) >> 8, scan)["bounds"]
        if lowest < 0 or highest >= vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise DataError(
                f"{self.file.prefix}: holds token id {wrong}, but the model's vocabulary has {vocab_size} tokens. "
                "Make the file with this model's tokenizer (`--task data`)."
            )
