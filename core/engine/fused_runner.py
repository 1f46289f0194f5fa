"""Computes a step of the scheduler by one call of the C++ kernels, where the model is one that they cover."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Several
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..ops.decoder_step import DecoderStep, Pages, StepRows
from ..ops.from_array import from_array
from ..parallel.tensor.model import split_of
from .decoder_plan import NotCoveredError, plan_decoder
from .paged_cache import PagedStore
from .paged_runner import PagedRunner
from .ranks import LeadingRunner
from .runner import inference
from .step_inputs import EmbeddingRows, PositionTables
from .step_runner import StepRunner

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from .scheduler import Work

_log = logging.getLogger("llm_run.engine")


def choose_runner(model: CausalLM, num_blocks: int, block_tokens: int, *, int8_cache: bool = False) -> StepRunner:
    """Return the fused runner where it covers the model, else the plain one; the choice and its reason are logged.

    Of a split model this is rank 0's runner; the other ranks ``follow``.
    """
    if split_of(model) is not None:
        _log.info("decoding: plain, each process its part (the C++ step needs whole layers)")
        return LeadingRunner(model, num_blocks, block_tokens, int8_cache=int8_cache)
    plain = PagedRunner(model, num_blocks, block_tokens, int8_cache=int8_cache)
    if int8_cache:
        _log.info("decoding: plain (the C++ step does not read keys and values of 8 bits, --cachekv_int8)")
        return plain
    try:
        runner = FusedRunner(model, plain, block_tokens)
    except NotCoveredError as gap:
        _log.info("decoding: plain (the C++ step does not cover this model: %s)", gap)
        return plain
    _log.info("decoding: native (one C++ call a step)")
    return runner


class FusedRunner(StepRunner):
    """Runs prompts and single tokens of many sequences together; those with an adapter run plain on the same pages."""

    def __init__(self, model: CausalLM, plain: PagedRunner, block_tokens: int) -> None:
        """Describe the model to the C++ step.

        Args:
            model: the network, ready for inference.
            plain: its pages are used.
            block_tokens: of a page.

        Raises:
            NotCoveredError: the step cannot do what the model does.
        """
        self._model, self._plain = model, plain
        self._plan, self._tables, self._embeddings = plan_decoder(model), PositionTables(model), EmbeddingRows(model)
        store = plain.store
        assert isinstance(store, PagedStore), "choose_runner gives others to the plain runner"
        # Weights of 8 bits have lost about 0.8 % of a number (in the mean square), float16 keys and values lose 0.02 %.
        is_half = self._plan.is_integer and self._plan.head_dim % 2 == 0
        kind = paddle.float16 if is_half else paddle.float32
        example = paddle.zeros([1, self._plan.num_kv_heads, self._plan.head_dim], dtype=kind)
        keys, values = zip(*(store.buffers(i, example, example) for i in range(len(self._plan.layers))), strict=True)
        self._step = DecoderStep(self._plan, Pages(keys, values, block_tokens))
        self._step.use_huge_pages()
        self._prefix_blocks = _prefix_blocks(model, store, block_tokens)
        self._num_shared = len(self._prefix_blocks) * block_tokens
        self._first_position = 0 if model.prefix is None else model.prefix.num_positions

    def run(self, works: Several[Work]) -> list[np.ndarray]:
        """Compute the tokens of each piece of work; ``StepRunner.run``."""
        adapted = [work for work in works if work.sequence.request.adapter is not None]
        if not adapted:
            return self._run(works)
        bare = [work for work in works if work.sequence.request.adapter is None]
        plain = iter(self._plain.run(adapted))
        fused = iter(self._run(bare)) if bare else plain
        found: list[np.ndarray] = []
        for work in works:
            found += islice(fused if work.sequence.request.adapter is None else plain, work.num_results)
        return found

    def _run(self, works: Several[Work]) -> list[np.ndarray]:
        # Lists, and no array: a step has few numbers, and each call of NumPy costs more than many of them.
        ids: list[int] = []
        positions: list[int] = []
        starts, lengths = [0], []
        tables: list[list[int]] = []
        wanted: list[int] = []
        for work in works:
            ids += work.new_ids
            first = self._first_position + work.start
            positions += range(first, first + work.size)
            starts.append(len(ids))
            lengths.append(self._num_shared + work.start + work.size)
            blocks = work.sequence.blocks
            tables.append([*self._prefix_blocks, *blocks] if self._prefix_blocks else blocks)
            wanted += range(len(ids) - work.num_results, len(ids))
        return self.forward(ids, positions, StepRows(starts, lengths, tables, wanted))

    def forward(self, ids_R: Several[int], positions_R: Several[int], rows: StepRows) -> list[np.ndarray]:
        """Append tokens to their sequences and return the logits of the wanted rows.

        Args:
            ids_R: tokens.
            positions_R: of each in its sequence.
            rows: which token is whose.

        Returns:
            For each wanted row float32 [V]. The next call may write over them.
        """
        tables = self._tables.rows(positions_R, rows.starts)
        results = self._step.run(self._embeddings.rows(ids_R, positions_R), rows, *tables)
        if self._plan.head is not None or len(rows.wanted) == 0:
            return results
        with inference(self._model):
            last_WH = from_array(np.stack(results))
            last_WH = last_WH if self._plan.norm is not None else self._model.finish(last_WH)
            logits_WV: np.ndarray = self._model.head(last_WH).astype("float32").numpy()
            return list(logits_WV)


def _prefix_blocks(model: CausalLM, store: PagedStore, block_tokens: int) -> range:
    """Return the blocks of a tuned prefix, which stand before those of every sequence.

    Raises:
        NotCoveredError: it does not fill its last block, where the tokens of a sequence would have to begin.
    """
    num_tokens = 0 if model.prefix is None else model.prefix.settings.num_tokens
    if num_tokens % block_tokens:
        raise NotCoveredError(f"its tuned prefix of {num_tokens} tokens does not fill blocks of {block_tokens}")
    end = store.num_slots // block_tokens
    return range(end - num_tokens // block_tokens, end)
