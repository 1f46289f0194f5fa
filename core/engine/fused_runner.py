"""Computes a step of the scheduler by one call of the C++ kernels, where the model is one that they cover."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Several
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import paddle

from ..ops.decoder_step import DecoderStep, Pages, StepRows
from ..ops.from_array import from_array
from ..parallel.tensor.model import split_of
from .decoder_plan import EmbeddingRows, NotCoveredError, PositionTables, plan_decoder
from .paged_cache import PagedStore
from .paged_runner import PagedRunner
from .ranks import LeadingRunner
from .runner import inference
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
        adapted = [place for place, work in enumerate(works) if work.sequence.request.adapter is not None]
        if not adapted:
            return self._run(works)
        rest = [place for place in range(len(works)) if place not in set(adapted)]
        found = dict(zip(adapted, self._plain.run([works[place] for place in adapted]), strict=True))
        if rest:
            found.update(zip(rest, self._run([works[place] for place in rest]), strict=True))
        return [found[place] for place in range(len(works))]

    def _run(self, works: Several[Work]) -> list[np.ndarray]:
        # Lists first: a step has few numbers, and each call of NumPy costs more than many of them.
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        starts, lengths, cuts = [0], [], [0]
        for work in works:
            ids += work.new_ids
            first = self._first_position + work.start
            positions += range(first, first + work.size)
            wanted += range(len(ids) - work.num_results, len(ids))
            starts.append(len(ids))
            lengths.append(self._num_shared + work.start + work.size)
            cuts.append(len(wanted))
        tables = _block_tables([[*self._prefix_blocks, *work.sequence.blocks] for work in works])
        rows = StepRows(_integers(starts), _integers(lengths), tables, _integers(wanted))
        logits_WV = self.forward(_integers(ids), _integers(positions), rows)
        return [logits_WV[start:end] for start, end in pairwise(cuts)]

    def forward(self, ids_R: np.ndarray, positions_R: np.ndarray, rows: StepRows) -> np.ndarray:
        """Append tokens to their sequences and return the logits of the wanted rows, float32 [wanted, V].

        Args:
            ids_R: int64 token ids.
            positions_R: int64, of each in its sequence.
            rows: which token is whose.
        """
        tables = self._tables.rows(positions_R, rows.starts)
        results = self._step.run(self._embeddings.rows(ids_R, positions_R), rows, *tables)
        if self._plan.head is not None or len(rows.wanted) == 0:
            return results
        with inference(self._model):
            last_WH = from_array(results)
            last_WH = last_WH if self._plan.norm is not None else self._model.finish(last_WH)
            logits_WV: np.ndarray = self._model.head(last_WH).astype("float32").numpy()
            return logits_WV


def _integers(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


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


def _block_tables(blocks: Several[Several[int]]) -> np.ndarray:
    tables = np.zeros([len(blocks), max(map(len, blocks))], dtype=np.int32)
    for row, mine in zip(tables, blocks, strict=True):
        row[: len(mine)] = mine
    return tables
