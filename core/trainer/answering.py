"""Answering the evaluation records while training, each rank its share of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data.instruction import find_files
from ..data.records import BadRecords
from ..engine.settings import SamplingSettings
from ..engine.setup import stop_ids
from ..evaluation.answers import ReferenceAnswers
from ..parallel.plan import REPLICAS
from ..parallel.sep.model import whole_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..causal_lm import CausalLM
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer
    from ..parallel.mesh import Mesh
    from ..run import Run


class Answering:
    """BLEU and ROUGE of greedy answers to the evaluation records."""

    def __init__(self, run: Run, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        """Read and render the records.

        Raises:
            DataError: a record is malformed or has no reference answer.
        """
        data, training = run.config.data, run.config.training
        self._batch_size, self._folder = training.per_device_eval_batch_size, Path(training.output_dir or ".")
        most = training.max_evaluate_steps * self._batch_size if training.max_evaluate_steps >= 0 else None
        self._answers = ReferenceAnswers(
            find_files(data.dataset_name_or_path, data.eval_dataset)[1], tokenizer, template,
            BadRecords("skip" if data.on_bad_record == "skip" else "error"),
            longest=min(data.src_length, run.model_config.max_positions - 1), most=most,
        )  # fmt: skip
        self._settings = SamplingSettings(
            max_new_tokens=run.config.decoding.max_new_tokens, stop_ids=stop_ids(tokenizer, template)
        )

    def figures(
        self, model: CausalLM, mesh: Mesh, step: int, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Answer all records and keep the answers in ``predictions-<step>.jsonl``.

        Args:
            model: as it is; every rank has all of it.
            mesh: of the run; every rank must call this, and all get the same result.
            step: in the name of the file.
            stopped: asked before every batch; True gives up, and must be the same on every rank.

        Returns:
            Scores by the names that ``metrics.jsonl`` has, or ``None`` after giving up.
        """
        own: dict[str, str] = {}
        count, group = len(self._answers.records), mesh.group(*REPLICAS)
        for first in range(0, count, self._batch_size * group.size):
            if stopped():
                return None
            start = first + group.index * self._batch_size
            places = range(min(start, count), min(start + self._batch_size, count))
            with whole_rows(model):
                answers = self._answers.answer(model, self._settings, places, batch_size=self._batch_size)
            own |= {str(place): answer for place, answer in zip(places, answers, strict=True)}
        parts = [own] if group.wire is None else group.wire.exchange_json(own, "the answers of an evaluation")
        found = {place: answer for part in parts for place, answer in part.items()}
        answers = [found[str(place)] for place in range(count)]
        if mesh.is_main:
            self._answers.save(self._folder / f"predictions-{step}.jsonl", answers)
        return {f"eval_{name}": value for name, value in self._answers.scores(answers).items()}
