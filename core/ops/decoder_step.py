"""One step of a whole decoder by the C++ kernels: prompts and single tokens, over keys and values in blocks.

Shape letters: R tokens of the step (rows), H hidden, N heads, K key/value heads, D head size, P half the rotary
dimensions, V vocabulary.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import paddle

from .matrix import MatrixTable
from .native import kernel

if TYPE_CHECKING:
    from paddle import Tensor

    from .float_rows import FloatRows
    from .matrix import Matrix

Activation = Literal["swiglu", "relu", "gelu", "gelu_tanh"]
ACTIVATIONS: tuple[Activation, ...] = ("swiglu", "relu", "gelu", "gelu_tanh")
"""What stands between the matrices of a feed-forward part; only ``swiglu`` has a gate. Numbers of csrc/decoder.h."""

KEPT_RESULTS = 64
"""Rows of results whose memory is used again: more than are wanted of a step that only answers, as a rule."""

_I, _P = ctypes.c_int64, ctypes.c_void_p


@dataclass(frozen=True)
class Norm:
    """RMSNorm, or LayerNorm where there is a bias; float32."""

    weight: Tensor
    bias: Tensor | None
    eps: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One block: ``x += o(attention(q, k, v of norm(x)))``, then ``x += down(activation(up of norm(x)))``."""

    attention_norm: Norm
    q: Matrix
    k: Matrix
    v: Matrix
    o: Matrix
    ffn_norm: Norm
    gate: Matrix | None
    up: Matrix
    down: Matrix
    q_norm: Norm | None = None
    """Over every single head of the queries."""
    k_norm: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class DecoderPlan:
    """A decoder as a table: what the C++ step needs to know of a model."""

    layers: tuple[Layer, ...]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    activation: Activation
    rotary_pairs: int = 0
    """Of entries of a head that turn together; 0: positions are elsewhere."""
    rotary_interleaved: bool = False
    slopes_N: np.ndarray | None = None
    """ALiBi, float32."""
    norm: Norm | None = None
    """After the last block; ``None``: the step returns the sums of the residual stream."""
    head: Matrix | None = None
    """``None``: the step returns hidden states."""

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.layers[0].q.table.inputs)

    @property
    def is_integer(self) -> bool:
        """Whether the blocks hold integer matrices."""
        return any(layer.down.is_integer for layer in self.layers)

    def matrices(self) -> list[Matrix]:
        """Return all matrices, in the order in which a step reads them."""
        found = [
            matrix
            for layer in self.layers
            for matrix in (layer.q, layer.k, layer.v, layer.o, layer.up, layer.gate, layer.down)
        ]
        return [matrix for matrix in (*found, self.head) if matrix is not None]

    @property
    def result_size(self) -> int:
        """Entries of a result row: V, or H without a head."""
        return self.hidden_size if self.head is None else int(self.head.table.outputs)


@dataclass(frozen=True)
class Pages:
    """Keys and values of all layers, in blocks of tokens: [blocks * tokens, K, D] each."""

    keys: tuple[Tensor, ...]
    """float32, or float16 at half the memory and traffic."""
    values: tuple[Tensor, ...]
    block_tokens: int


@dataclass(slots=True)
class StepRows:
    """What a step computes: the new tokens of some sequences, those of one side by side and in order."""

    starts: Sequence[int]
    """[sequences + 1]: the first row of each, and R."""
    lengths: Sequence[int]
    """[sequences]: tokens of each in the cache once this step's are."""
    tables: Sequence[Sequence[int]]
    """The blocks of each, in order."""
    wanted: Sequence[int]
    """Rows whose results are asked for, each once."""


class _NormTable(ctypes.Structure):
    _fields_ = (("weight", _P), ("bias", _P), ("eps", ctypes.c_float))


class _LayerTable(ctypes.Structure):
    _fields_ = (
        *((name, _NormTable) for name in ("attention_norm", "ffn_norm", "q_norm", "k_norm")),
        *((name, MatrixTable) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ("keys", _P),
        ("values", _P),
    )


class _DecoderTable(ctypes.Structure):
    _fields_ = (
        *((name, _I) for name in ("num_layers", "hidden", "heads", "kv_heads", "head_dim", "ffn")),
        *((name, _I) for name in ("pairs", "interleaved", "activation")),
        *((name, _I) for name in ("block_tokens", "block_stride", "token_stride", "head_stride", "half")),
        ("slopes", _P),
        ("layers", _P),
        ("norm", _NormTable),
        ("head", MatrixTable),
    )


class _StepTable(ctypes.Structure):
    _fields_ = (
        *((name, _I) for name in ("rows", "sequences")),
        *((name, _P) for name in ("hidden", "starts", "lengths", "tables")),
        ("table_width", _I),
        *((name, _P) for name in ("cosine", "sine", "query_scales", "wanted")),
        ("num_wanted", _I),
        ("results", _P),
    )


class DecoderStep:
    """A plan and pages, ready to be called, by one thread at a time.

    Python is cold behind a step that has read 100 MB of weights. So what can be known before is: the C function, the
    tables for it, and the addresses of whatever keeps its place.
    """

    def __init__(self, plan: DecoderPlan, pages: Pages) -> None:
        """Make the tables of the layers."""
        self.plan = plan
        self.pages = pages
        self._layers = (_LayerTable * len(plan.layers))(
            *(_layer(layer, *memory) for layer, *memory in zip(plan.layers, pages.keys, pages.values, strict=True))
        )
        self._decoder = _decoder(plan, pages, self._layers)
        self._step = _StepTable()
        self._addresses = ctypes.addressof(self._decoder), ctypes.addressof(self._step)
        kept = np.empty([KEPT_RESULTS, plan.result_size], dtype=np.float32)
        self._results, self._results_address = list(kept), _address(kept)
        self._compute = kernel("decoder_step")

    def use_huge_pages(self) -> None:
        """Move matrices, keys and values to pages of 2 MB, where the system has them; takes a second a gigabyte."""
        for matrix in self.plan.matrices():
            matrix.use_huge_pages()
        for memory in (*self.pages.keys, *self.pages.values):
            kernel("use_huge_pages")(memory.data_ptr(), memory.size * memory.element_size())

    def run(
        self,
        hidden_RH: FloatRows,
        rows: StepRows,
        cosine_RP: FloatRows | None = None,
        sine_RP: FloatRows | None = None,
        query_scales_R: FloatRows | None = None,
    ) -> list[np.ndarray]:
        """Put the tokens through all layers, append them to the pages, and return the results of the wanted ones.

        Args:
            hidden_RH: embeddings; overwritten.
            rows: which token is whose.
            cosine_RP: of the tokens' positions; with ``sine_RP`` where the plan has a rotation.
            sine_RP: likewise.
            query_scales_R: factors on the queries.

        Returns:
            For each wanted one float32 [V], or [H] where the plan has no head. The next call may write over them.
        """
        table = self._step
        held = _describe(table, rows, self.pages.block_tokens)
        table.hidden = hidden_RH.address
        table.cosine = None if cosine_RP is None else cosine_RP.address
        table.sine = None if sine_RP is None else sine_RP.address
        table.query_scales = None if query_scales_R is None else query_scales_R.address
        results, table.results = self._place_for(len(rows.wanted))
        self._compute(*self._addresses)
        del held  # which the table points into
        return results

    def attention(self, q_RND: Tensor, rows: StepRows) -> Tensor:
        """Return the first layer's attention [R, N, D] of queries whose keys and values are in the pages."""
        out_RND = paddle.empty_like(q_RND)
        held = _describe(self._step, rows, self.pages.block_tokens)
        kernel("paged_attention")(*self._addresses, q_RND.data_ptr(), out_RND.data_ptr())
        del held
        return out_RND

    def _place_for(self, wanted: int) -> tuple[list[np.ndarray], int]:
        """Return arrays for so many results, which lie side by side, and the address of the first."""
        if wanted <= KEPT_RESULTS:
            return self._results[:wanted], self._results_address
        fresh = np.empty([wanted, self.plan.result_size], dtype=np.float32)
        return list(fresh), _address(fresh)


def _describe(table: _StepTable, rows: StepRows, block_tokens: int) -> tuple[array[int], array[int]]:
    """Let a table tell of rows, and return the memory that it points into."""
    starts, lengths, wanted = rows.starts, rows.lengths, rows.wanted
    width = max(map(len, rows.tables))
    assert max(lengths) <= width * block_tokens, "every token of the cache has a place in a block"
    blocks: list[int] = []
    for own in rows.tables:
        blocks += own
        blocks += [0] * (width - len(own))
    numbers, tables = array("q", [*starts, *lengths, *wanted]), array("i", blocks)
    address, _ = numbers.buffer_info()
    table.rows, table.sequences = starts[-1], len(lengths)
    table.starts = address
    table.lengths = address + 8 * len(starts)
    table.wanted = address + 8 * (len(starts) + len(lengths))
    table.num_wanted = len(wanted)
    table.tables, _ = tables.buffer_info()
    table.table_width = width
    return numbers, tables


def _address(values: np.ndarray) -> int:
    assert values.flags.c_contiguous
    return int(values.ctypes.data)


def _norm(norm: Norm | None) -> _NormTable:
    if norm is None:
        return _NormTable()
    return _NormTable(norm.weight.data_ptr(), None if norm.bias is None else norm.bias.data_ptr(), norm.eps)


def _matrix(matrix: Matrix | None) -> MatrixTable:
    return MatrixTable() if matrix is None else matrix.table


def _layer(layer: Layer, keys: Tensor, values: Tensor) -> _LayerTable:
    return _LayerTable(
        *(_norm(norm) for norm in (layer.attention_norm, layer.ffn_norm, layer.q_norm, layer.k_norm)),
        *(_matrix(m) for m in (layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down)),
        keys.data_ptr(), values.data_ptr(),
    )  # fmt: skip


def _decoder(plan: DecoderPlan, pages: Pages, layers: Any) -> _DecoderTable:
    token_stride, head_stride, _ = pages.keys[0].strides
    return _DecoderTable(
        len(plan.layers), plan.hidden_size, plan.num_heads, plan.num_kv_heads, plan.head_dim,
        plan.layers[0].up.table.outputs, plan.rotary_pairs, plan.rotary_interleaved,
        ACTIVATIONS.index(plan.activation), pages.block_tokens,
        pages.block_tokens * token_stride, token_stride, head_stride,
        pages.keys[0].dtype == paddle.float16, None if plan.slopes_N is None else _address(plan.slopes_N),
        ctypes.addressof(layers), _norm(plan.norm), _matrix(plan.head),
    )  # fmt: skip
